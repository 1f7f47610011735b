package placement

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// world simulates some hosts and their store. Times in it are true times; each host has a clock of its own.
type world struct {
	rng    *rand.Rand
	now    time.Duration
	queue  queue
	seq    int
	hosts  []*host
	store  store
	faults bool
	mutant mutant
	lines  []string
	failed string
	// The last start of the program.
	fence int64
	on    *host
	moves int
}

// mutant breaks a rule. The simulation must notice it.
type mutant struct {
	drift       float64 // how far the rates of the clocks differ, in place of 1/Drift
	sentLate    bool    // the life of a lease is counted from the answer
	noConfirm   bool    // the store does not confirm its leader before a renewal
	gone        bool    // the caller always says that no process is left
	noKill      bool    // Kill is not carried out
	noState     bool    // a new leader does not read the state, and takes the program for gone
	slowReserve bool    // a new leader takes far longer than the reserve
	lateStart   bool    // a program is started although its start is late
}

type timer struct {
	at  time.Duration
	seq int
	do  func()
}

type queue []timer

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(timer)) }
func (q *queue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

func (w *world) after(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.queue, timer{w.now + max(d, 0), w.seq, do})
}

func (w *world) random(d time.Duration) time.Duration {
	return time.Duration(w.rng.Int64N(int64(max(d, 1))))
}

func (w *world) chance(percent int) bool { return w.rng.IntN(100) < percent }

func (w *world) say(format string, args ...any) {
	w.lines = append(w.lines, fmt.Sprintf("%9.3fs ", w.now.Seconds())+fmt.Sprintf(format, args...))
}

func (w *world) fail(format string, args ...any) {
	if w.failed == "" {
		w.failed = fmt.Sprintf(format, args...)
		w.say("FAILED: %s", w.failed)
	}
}

// rate returns the rate of a clock.
func (w *world) rate() float64 {
	drift := 1.0 / Drift
	if w.mutant.drift > 0 {
		drift = w.mutant.drift
	}
	return 1 + drift*(2*float64(w.rng.IntN(2))-1) // the extremes are the worst cases
}

// store is the store of all hosts: a key and its lease.
type store struct {
	revision int64
	lease    int64
	leases   int64
	owner    *host // of the key, or nil
	fence    int64
	ttl      time.Duration
	expires  time.Duration
	rate     float64
	term     int
	elected  time.Duration // the present leader
}

// watch revokes the lease when it has expired, with a delay as etcd has.
func (w *world) watch() {
	lease, expires := w.store.lease, w.store.expires
	w.after(expires-w.now+w.random(700*time.Millisecond), func() {
		if s := &w.store; s.owner != nil && s.lease == lease && s.expires == expires {
			w.say("the lease %d of %s has expired", lease, s.owner.name)
			s.owner = nil
			s.revision++
		}
	})
}

func (w *world) refresh() {
	w.store.expires = w.now + time.Duration(float64(w.store.ttl)/w.store.rate)
	w.watch()
}

// elect makes another process the leader of the store. Each lease then has its whole life again.
func (w *world) elect() {
	w.store.term++
	w.store.elected = w.now
	w.store.rate = w.rate()
	w.say("the store has another leader")
	if w.store.owner != nil {
		w.refresh()
	}
}

// host is a host with its leader and its program.
type host struct {
	w       *world
	name    string
	rate    float64
	offset  time.Duration
	core    *Core // nil while there is no leader
	saved   State
	booted  bool // the host has booted since saved was written
	epoch   int  // of the leader
	down    bool
	frozen  bool
	cut     bool // nothing reaches the store
	wanted  bool
	stop    time.Duration
	running bool
	pending bool // the program is being started
	ending  bool
	run     int
}

func (h *host) clock() time.Duration {
	return h.offset + time.Duration(float64(h.w.now)*h.rate)
}

// true returns how long a time of the host's clock is in true time.
func (h *host) truly(d time.Duration) time.Duration { return time.Duration(float64(d) / h.rate) }

// lead begins with a new leader.
func (h *host) lead() {
	h.epoch++
	saved := h.saved
	if h.w.mutant.noState {
		saved = State{}
	}
	core, effects := New(NewLimits(time.Second), h.clock(), saved, !h.booted)
	h.core, h.booted = core, false
	h.do(effects)
	h.look()
}

func (h *host) look() {
	gone := !h.running && !h.pending || h.w.mutant.gone || h.w.mutant.noState
	h.step(Look{Wanted: h.wanted, Gone: gone, Stop: h.stop})
}

func (h *host) step(ev Event) {
	if h.core == nil || h.frozen {
		return
	}
	h.do(h.core.Step(h.clock(), ev))
	h.reconcile()
	if at, ok := h.core.Wake(); ok {
		epoch := h.epoch
		h.w.after(h.truly(at-h.clock())+time.Microsecond, func() {
			if h.epoch == epoch && h.core != nil && !h.frozen && h.clock() >= at {
				if now, ok := h.core.Wake(); ok && now <= h.clock() {
					h.step(Tick{})
				}
			}
		})
	}
}

// reconcile starts or stops the program.
func (h *host) reconcile() {
	switch {
	case h.core.Allowed() && !h.running && !h.pending:
		h.start()
	case !h.core.Allowed() && h.running && !h.ending:
		h.ending = true
		d := h.stop // then it is killed
		if h.w.chance(70) {
			d = h.w.random(h.stop)
		}
		if h.w.mutant.noKill {
			d += time.Minute
		}
		h.endIn(h.truly(d))
	}
}

func (h *host) start() {
	h.pending = true
	h.run++
	run, fence, late := h.run, h.core.Fence, h.core.Late()
	delay := h.w.random(100 * time.Millisecond)
	if h.w.faults && h.w.chance(10) {
		delay = h.w.random(30 * time.Second)
	}
	h.w.after(delay, func() {
		if h.run != run || h.down {
			return
		}
		h.pending = false
		if h.frozen || h.core == nil || !h.w.mutant.lateStart && (h.clock() >= late || !h.core.Allowed()) {
			h.look()
			return
		}
		h.running, h.ending = true, false
		h.w.say("%s: the program runs with fence %d", h.name, fence)
		h.w.started(h, fence)
		h.look()
	})
}

func (h *host) endIn(d time.Duration) {
	run := h.run
	h.w.after(d, func() {
		if h.run == run && h.running {
			h.running, h.ending = false, false
			h.w.say("%s: the program is gone", h.name)
			h.look()
		}
	})
}

func (w *world) started(h *host, fence int64) {
	switch {
	case fence < w.fence || fence == w.fence && w.on != h:
		w.fail("%s has fence %d after %d", h.name, fence, w.fence)
	case w.on != h:
		w.moves++
	}
	w.fence, w.on = fence, h
	w.check()
}

// check is the oracle: the program runs on one host at most.
func (w *world) check() {
	var on []string
	for _, h := range w.hosts {
		if h.running && !h.frozen {
			on = append(on, h.name)
		}
	}
	if len(on) > 1 {
		w.fail("the program runs on %s", strings.Join(on, " and "))
	}
}

func (h *host) do(effects []Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case Save:
			h.saved = e.State
		case Kill:
			if h.running && !h.w.mutant.noKill {
				h.w.say("%s: killed", h.name)
				h.endIn(h.w.random(100 * time.Millisecond))
			}
		case Stop:
			h.w.say("%s: stop: %s", h.name, e.Why)
		case Claim, Renew, Release:
			h.ask(e)
		case Allow:
		}
	}
}

// delay is how long a message takes. ok is false if it is lost.
func (h *host) delay() (d time.Duration, ok bool) {
	w := h.w
	switch {
	case h.cut || w.faults && w.chance(5):
		return 0, false
	case w.faults && w.chance(5):
		return w.random(20 * time.Second), true
	}
	return w.random(50 * time.Millisecond), true
}

// patience is how long the caller waits for an answer.
const patience = 1500 * time.Millisecond

func (h *host) ask(request Effect) {
	sent, epoch, answered := h.clock(), h.epoch, false
	var answer func(Event)
	answer = func(ev Event) {
		if h.frozen {
			h.w.after(10*time.Millisecond, func() { answer(ev) })
			return
		}
		if !answered && h.epoch == epoch && h.core != nil {
			answered = true
			if h.w.mutant.sentLate {
				switch e := ev.(type) {
				case Claimed:
					e.Sent = h.clock()
					ev = e
				case Renewed:
					e.Sent = h.clock()
					ev = e
				}
			}
			h.step(ev)
		}
	}
	h.w.after(h.truly(patience), func() { answer(Failed{}) })
	there, ok := h.delay()
	if !ok {
		return
	}
	h.w.after(there, func() {
		h.w.serve(h, request, sent, func(ev Event) {
			if back, ok := h.delay(); ok {
				h.w.after(back, func() { answer(ev) })
			}
		})
	})
}

// serve is what the store's process does with a request.
func (w *world) serve(h *host, request Effect, sent time.Duration, answer func(Event)) {
	s := &w.store
	switch r := request.(type) {
	case Claim:
		switch {
		case s.owner == h:
			answer(Taken{Mine: s.lease})
		case s.owner != nil:
			answer(Taken{})
		default:
			s.revision++
			s.leases++
			s.owner, s.lease, s.fence, s.ttl = h, s.leases, s.revision, r.TTL
			w.refresh()
			w.say("%s owns it, lease %d, fence %d", h.name, s.lease, s.fence)
			answer(Claimed{Sent: sent, TTL: r.TTL, Lease: s.lease, Fence: s.fence})
		}
	case Renew:
		if s.owner == nil || s.lease != r.Lease || s.fence != r.Fence {
			answer(Lost{Lease: r.Lease})
			return
		}
		term := s.term
		if w.mutant.noConfirm && w.now < s.elected+10*time.Second {
			answer(Renewed{Sent: sent, Lease: r.Lease}) // by the leader before
			return
		}
		// Between the confirmation and the renewal, the leader can change. The old one still answers.
		w.after(w.random(20*time.Millisecond), func() {
			switch {
			case s.term != term && w.chance(50):
				answer(Renewed{Sent: sent, Lease: r.Lease})
			case s.owner == nil || s.lease != r.Lease || w.now >= s.expires:
				answer(Lost{Lease: r.Lease})
			default:
				w.refresh()
				answer(Renewed{Sent: sent, Lease: r.Lease})
			}
		})
	case Release:
		if s.owner != nil && s.lease == r.Lease {
			w.say("%s gives it back", s.owner.name)
			s.owner = nil
			s.revision++
		}
		answer(Released(r))
	}
}

// fault lets something go wrong.
func (w *world) fault() {
	h := w.hosts[w.rng.IntN(len(w.hosts))]
	switch w.rng.IntN(7) {
	case 0: // the leader dies
		if h.core != nil && !h.down && !h.frozen {
			w.say("%s: the leader dies", h.name)
			h.core, h.pending = nil, false
			h.run += btoi(!h.running)
			most := NewLimits(time.Second).Reserve - 300*time.Millisecond
			if w.mutant.slowReserve {
				most *= 20
			}
			epoch := h.epoch
			w.after(w.random(most), func() {
				if h.core == nil && !h.down && h.epoch == epoch {
					h.lead()
				}
			})
		}
	case 1: // the host dies
		if !h.down {
			w.say("%s: the host dies", h.name)
			h.core, h.down, h.frozen, h.running, h.pending, h.ending = nil, true, false, false, false, false
			h.run++
			w.after(w.random(time.Minute), func() { h.boot() })
		}
	case 2, 3: // the host is cut off
		if !h.cut {
			w.say("%s: cut off", h.name)
			h.cut = true
			w.after(w.random(40*time.Second), func() { h.cut = false })
		}
	case 4: // the host stands still
		if !h.frozen && !h.down && h.core != nil {
			w.say("%s: frozen", h.name)
			h.frozen = true
			epoch := h.epoch
			w.after(w.random(40*time.Second), func() {
				if h.epoch == epoch {
					h.thaw()
				}
			})
		}
	case 5:
		w.elect()
	case 6: // an operator
		h.wanted = !h.wanted
		h.look()
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (h *host) boot() {
	if h.down {
		h.w.say("%s: the host boots", h.name)
		h.down, h.booted = false, true
		h.offset = h.w.random(time.Hour) - time.Duration(float64(h.w.now)*h.rate)
		h.lead()
	}
}

// thaw ends a standstill of the whole host. What the program does in the first instant, before its leader
// can kill it, is beyond these rules.
func (h *host) thaw() {
	if !h.frozen {
		return
	}
	h.w.say("%s: thawed", h.name)
	h.frozen = false
	if h.running && h.core != nil && h.clock() >= h.core.Kill() {
		h.running, h.ending = false, false
		h.run++
	}
	h.w.check()
	h.look()
	h.step(Tick{})
}

// simulate runs a world: some minutes with faults, then some without. It returns what is wrong.
func simulate(seed uint64, m mutant) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, seed)), mutant: m, faults: true}
	w.store.rate = w.rate()
	for n := range 2 + w.rng.IntN(2) {
		h := &host{w: w, name: string(rune('a' + n)), rate: w.rate(), offset: w.random(time.Hour), wanted: true}
		h.stop = w.random(10 * time.Second)
		w.hosts = append(w.hosts, h)
	}
	for _, h := range w.hosts {
		h.lead()
	}
	const faulty, calm = 5 * time.Minute, 2 * time.Minute
	for at := time.Duration(0); at < faulty; at += w.random(10 * time.Second) {
		w.after(at, w.fault)
	}
	w.after(faulty, func() {
		w.say("the faults end")
		w.faults = false
		for _, h := range w.hosts {
			h.cut, h.wanted = false, true
			h.boot()
			h.thaw()
			if h.core == nil {
				h.lead()
			}
			h.look()
		}
	})
	w.after(faulty+calm, func() {
		running := 0
		for _, h := range w.hosts {
			running += btoi(h.running)
		}
		if running != 1 {
			w.fail("without faults, the program runs on %d hosts", running)
		}
	})
	for w.queue.Len() > 0 && w.now <= faulty+calm && w.failed == "" {
		t := heap.Pop(&w.queue).(timer)
		w.now = t.at
		t.do()
	}
	return w
}

func TestSimulation(t *testing.T) {
	seeds := 400
	if testing.Short() {
		seeds = 50
	}
	first := rand.Uint64() >> 16
	t.Logf("the first of %d seeds: %d", seeds, first)
	moves := 0
	for seed := first; seed < first+uint64(seeds); seed++ {
		w := simulate(seed, mutant{})
		if w.failed != "" {
			t.Fatalf("seed %d: %s\n%s", seed, w.failed, strings.Join(w.lines[max(0, len(w.lines)-60):], "\n"))
		}
		moves += w.moves
	}
	if moves < seeds {
		t.Errorf("the program moved %d times with %d seeds; the faults do nothing", moves, seeds)
	}
}

// Each of these mistakes is found.
func TestMutants(t *testing.T) {
	for name, m := range map[string]mutant{
		"clocks that differ by far more":         {drift: 0.2},
		"counted from the answer":                {sentLate: true},
		"a leader of the store that was deposed": {noConfirm: true},
		"claimed while the program runs":         {gone: true},
		"never killed":                           {noKill: true},
		"the state is not read":                  {noState: true},
		"nobody acts in the reserve":             {slowReserve: true},
		"started late":                           {lateStart: true},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := uint64(1); seed <= 2000; seed++ {
				if w := simulate(seed, m); w.failed != "" {
					t.Logf("found with seed %d: %s", seed, w.failed)
					return
				}
			}
			t.Error("not found with 2000 seeds")
		})
	}
}
