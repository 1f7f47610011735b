package gate

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestPeerIsToldAgain(t *testing.T) {
	var p Peer
	now := time.Now()
	tell := func(version uint64, err error) { p.Tell(now, func() (uint64, error) { return version, err }) }
	if p.Knows(1, now) {
		t.Error("knows something before it was told")
	}
	tell(1, errors.New("the request is gone"))
	if p.Knows(1, now) {
		t.Error("knows what could not be sent")
	}
	tell(1, nil)
	if !p.Knows(1, now) || p.Knows(2, now) {
		t.Error("does not know exactly what it was told")
	}
	if p.Knows(1, now.Add(repeatAfter)) {
		t.Error("is not told again later")
	}
}

// The version that is sent last is the newest, however many answers are sent at the same time.
func TestPeerIsToldInOrder(t *testing.T) {
	var (
		p      Peer
		newest atomic.Uint64
		sent   []uint64
		wg     sync.WaitGroup
		now    = time.Now()
	)
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				newest.Add(1)
				p.Tell(now, func() (uint64, error) {
					v := newest.Load()
					sent = append(sent, v)
					return v, nil
				})
			}
		})
	}
	wg.Wait()
	for i := 1; i < len(sent); i++ {
		if sent[i] < sent[i-1] {
			t.Fatalf("version %d was sent after version %d", sent[i], sent[i-1])
		}
	}
	if !p.Knows(newest.Load(), now) {
		t.Error("does not know the newest version")
	}
}
