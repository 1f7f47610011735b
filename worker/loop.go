package worker

import (
	"sync"
	"time"

	"github.com/dynast-io/dynast/shared/host/tick"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/worker/state"
)

// loop owns the core. It feeds events to the core and carries out the effects until the process
// exits. It implements state.Loop.
type loop struct {
	mail    *mailbox
	turn    turn
	core    *core.Core // owned by the goroutine that holds the turn
	started time.Time
	fate    *state.Fate
	// roster receives the roster after each step, and do carries out an effect. Neither
	// waits for a disk or a process.
	roster func(*roster.Roster)
	do     func(core.Effect)
}

func newLoop(fate *state.Fate) *loop {
	return &loop{mail: newMailbox(), started: tick.Origin(), fate: fate}
}

// now is the core's clock. It is monotonic, starts with the process and is never 0.
func (l *loop) now() time.Duration { return time.Since(l.started) + 1 }

// Post queues an event.
func (l *loop) Post(ev core.Event) { l.mail.post(mail{event: ev}) }

// Put is Post without waking the loop.
func (l *loop) Put(ev core.Event) { l.mail.put(mail{event: ev}) }

// Do queues a function.
func (l *loop) Do(f func()) { l.mail.post(mail{ask: f}) }

// turn is the right to feed the core, which one goroutine at a time has. That is the loop's
// goroutine, or one with an event that writes wait for.
type turn struct {
	mu    sync.Mutex
	batch []mail
	wake  time.Duration // when the loop's timer fires
}

// run feeds the core until the process exits.
func (l *loop) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		l.turn.mu.Lock()
		l.readMail()
		if l.now() >= l.core.Wake() {
			l.step(core.Tick{})
		}
		l.turn.wake = l.core.Wake()
		l.turn.mu.Unlock()
		if !l.mail.empty() {
			continue
		}
		timer.Reset(max(l.turn.wake-l.now(), 0))
		select {
		case <-l.mail.notify:
		case <-timer.C:
		case <-l.fate.Ended():
			return
		}
	}
}

// readMail feeds all queued mail to the core. The caller holds the turn.
func (l *loop) readMail() {
	batch := l.mail.take(l.turn.batch)
	for i := range batch {
		select {
		case <-l.fate.Ended():
			return
		default:
		}
		if batch[i].ask != nil {
			batch[i].ask()
		} else {
			l.step(batch[i].event)
		}
		batch[i] = mail{}
	}
	l.turn.batch = batch
}

// Feed feeds the core on the caller's goroutine, if no other goroutine is doing so. That saves
// the switch to the loop's goroutine and back.
func (l *loop) Feed() {
	// After releasing the turn, the goroutine checks the mailbox again, so that no mail stays behind.
	for !l.mail.empty() && l.turn.mu.TryLock() {
		l.fate.Guarded(l.readMail)
		early := l.core.Wake() < l.turn.wake
		l.turn.mu.Unlock()
		if early {
			l.mail.wake()
		}
	}
}

func (l *loop) step(ev core.Event) {
	effects := l.core.Step(l.now(), ev)
	l.roster(l.core.Roster())
	for _, e := range effects {
		l.do(e)
	}
}

// ask runs f on the loop's goroutine and waits for it. It returns false if the process exits
// first.
func (l *loop) ask(f func()) bool {
	done := make(chan struct{})
	l.mail.post(mail{ask: func() { f(); close(done) }})
	select {
	case <-done:
		return true
	case <-l.fate.Ended():
		return false
	}
}

// view returns the core's view of the cluster. ok is false if the process exits first.
func (l *loop) view() (v core.View, ok bool) {
	ok = l.ask(func() { v = l.core.View(l.now()) })
	return v, ok
}
