package worker

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/core"
)

// TestNoMailIsLeftBehind: many feed the core at the same time, some by
// themselves and some through the loop; each piece of mail is read, each sender's
// in order, and never two at the same time.
func TestNoMailIsLeftBehind(t *testing.T) {
	m := &Member{mail: newMailbox(), ended: make(chan struct{}), started: time.Now()}
	m.core = core.New(core.Config{HeartbeatInterval: time.Hour, HeartbeatTimeout: time.Hour, Rand: rand.New(rand.NewPCG(1, 1))})
	m.published.Store(&published{roster: m.core.Roster()})
	m.upstream, m.silence = newUpstream(m), newSilence(m)
	const senders, each = 8, 2000
	var next [senders]int
	var read, reading int
	all := make(chan struct{})
	var loop, sending sync.WaitGroup
	loop.Go(m.loop)
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
					m.mail.post(ask)
				} else {
					m.mail.put(ask)
					m.readMailNow()
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
	close(m.ended)
	loop.Wait()
}
