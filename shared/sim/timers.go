package sim

import "time"

// timer is something that happens at a time. With a process it happens in that
// process: never once it is dead, and later when it is stopped.
type timer struct {
	at    time.Duration
	order uint64 // of two at the same time, the older first
	in    *process
	do    func()
}

func (t *timer) before(o *timer) bool {
	return t.at < o.at || t.at == o.at && t.order < o.order
}

// timers is a heap, the next timer first. container/heap would box every one:
// a run has tens of thousands.
type timers []timer

func (h *timers) push(t timer) {
	s := append(*h, t)
	i := len(s) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !t.before(&s[up]) {
			break
		}
		s[i] = s[up]
		i = up
	}
	s[i] = t
	*h = s
}

func (h *timers) pop() timer {
	s := *h
	top := s[0]
	n := len(s) - 1
	t := s[n]
	s[n] = timer{} // or what it refers to stays
	s = s[:n]
	*h = s
	if n == 0 {
		return top
	}
	i := 0
	for {
		down := 2*i + 1
		if down >= n {
			break
		}
		if down+1 < n && s[down+1].before(&s[down]) {
			down++
		}
		if !s[down].before(&t) {
			break
		}
		s[i] = s[down]
		i = down
	}
	s[i] = t
	return top
}
