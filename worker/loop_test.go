package worker

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/worker/state"
)

// Many goroutines feed the core at the same time, some by themselves and some through the
// loop. Each piece of mail is read, each sender's mail in order, and never two at a time.
func TestAllMailIsRead(t *testing.T) {
	fate := state.NewFate(func(core.ExitCode, string) {})
	l := newLoop(fate)
	l.roster, l.do = func(*roster.Roster) {}, func(core.Effect) {}
	l.core = core.New(core.Config{HeartbeatInterval: time.Hour, HeartbeatTimeout: time.Hour, Rand: rand.New(rand.NewPCG(1, 1))})
	const senders, each = 8, 2000
	var next [senders]int
	var read, reading int
	all := make(chan struct{})
	var loop, sending sync.WaitGroup
	loop.Go(l.run)
	for s := range senders {
		sending.Go(func() {
			for i := range each {
				ask := mail{ask: func() {
					if reading++; reading != 1 || next[s] != i {
						t.Errorf("sender %d, mail %d: %d at once, %d was expected", s, i, reading, next[s])
					}
					next[s]++
					reading--
					if read++; read == senders*each {
						close(all)
					}
				}}
				if s%2 == 0 {
					l.mail.post(ask)
				} else {
					l.mail.put(ask)
					l.Feed()
				}
			}
		})
	}
	sending.Wait()
	select {
	case <-all:
	case <-time.After(time.Minute):
		t.Error("some mail was never read")
	}
	fate.End(core.ExitDone, "the test is over")
	loop.Wait()
}

func TestMailboxKeepsOrder(t *testing.T) {
	b := newMailbox()
	var got []int
	for i := range 5 {
		b.post(mail{ask: func() { got = append(got, i) }})
	}
	for _, m := range b.take(nil) {
		m.ask()
	}
	if fmt.Sprint(got) != "[0 1 2 3 4]" {
		t.Errorf("order: %v", got)
	}
	if q := b.take(nil); len(q) != 0 || !b.empty() {
		t.Errorf("nothing was posted: %v", q)
	}
}
