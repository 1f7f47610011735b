package sim

import "time"

// timer is a function that runs at a time. With a process, it runs in that process: never once
// the process is dead, and later if the process is stopped.
type timer struct {
	at    time.Duration
	order uint64 // of two timers at the same time, the older one runs first
	in    *process
	do    func()
}

func (t *timer) before(o *timer) bool {
	return t.at < o.at || t.at == o.at && t.order < o.order
}

// timers is a heap with the next timer first. It does not use container/heap, which would
// allocate for every timer; a run has tens of thousands.
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
	s[n] = timer{} // so that its references do not stay alive
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
