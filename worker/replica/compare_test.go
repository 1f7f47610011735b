package replica

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"go.etcd.io/etcd/server/v3/storage/mvcc"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/replica/store"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/worker/state/statetest"
)

func memberAt(port uint16) roster.ID {
	return roster.ID{Address: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port), PID: int(port)}
}

// linked holds the followers that have a stream.
type linked map[roster.ID]bool

func (linked) Appended(int)                               {}
func (linked) Resync(string)                              {}
func (linked) Needed(roster.ID) (uint64, bool)            { return 0, false }
func (l linked) RequestDigest(id roster.ID, _ int64) bool { return l[id] }

// A caller of HoldLong is interrupted when the copy is to be exchanged, even if the call comes
// while the exchange already waits.
func TestHoldLongIsInterrupted(t *testing.T) {
	r := &holder{}
	h, ctx := r.HoldLong(context.Background())
	excluded := make(chan struct{})
	go func() {
		release := r.exclude()
		close(excluded)
		release()
	}()
	<-ctx.Done()
	select {
	case <-excluded:
		t.Error("the copy was exchanged while it was held")
	default:
	}
	h.Release()
	<-excluded
	// Afterwards the copy can be held again.
	h, ctx = r.HoldLong(context.Background())
	if ctx.Err() != nil {
		t.Error("interrupted for no reason")
	}
	h.Release()
	<-ctx.Done() // nothing is left behind
}

// A comparison does not wait for followers that died. The next round asks the followers again
// that differed or could not be compared, but not those that were equal.
func TestComparisonSkipsDeadFollowers(t *testing.T) {
	leader, a, b := memberAt(7000), memberAt(7001), memberAt(7002)
	sh, _ := statetest.New(t, &config.Config{}, false)
	others := linked{}
	c := &comparison{Shared: sh, links: func() Links { return others }}
	listed := func(ids ...roster.ID) {
		r := &roster.Roster{Leader: leader.Address, Members: []roster.Member{{ID: leader, Role: roster.Leader, State: roster.Serving}}}
		for _, id := range ids {
			r.Members = append(r.Members, roster.Member{ID: id, Role: roster.Follower, State: roster.InSync})
			others[id] = true
		}
		sh.Publish(r)
	}
	listed(a, b)
	if n := c.ask(9); n != 2 {
		t.Fatalf("%d followers were asked", n)
	}
	c.answered(a, &wire.Digest{Revision: 9, Hash: 1})
	listed(a)
	c.wait(t.Context()) // not for b
	own := store.Digest{Revision: 9, Hash: 2}
	if got := c.finishRound(own); len(got.Others) != 1 || got.Others[a] != 1 || got.Own != 2 || got.Agreed != 0 {
		t.Errorf("answers %+v", got)
	}
	c.answered(b, &wire.Digest{Revision: 9, Hash: 1}) // too late
	listed(a, b)
	if n := c.ask(9); n != 2 {
		t.Errorf("%d followers were asked, want only the one that differed", n)
	}
	c.answered(a, &wire.Digest{Revision: 9, Hash: 2})
	c.answered(b, &wire.Digest{Revision: 9, Hash: 2})
	c.wait(t.Context())
	c.finishRound(own)
	if n := c.ask(9); n != 0 {
		t.Errorf("%d followers were asked again", n)
	}
	// They count when a further follower is compared at the same revision.
	d := memberAt(7003)
	listed(a, b, d)
	if n := c.ask(9); n != 1 {
		t.Fatalf("%d followers were asked, want only the new one", n)
	}
	c.answered(d, &wire.Digest{Revision: 9, Hash: 3})
	if got := c.finishRound(own); len(got.Others) != 1 || got.Agreed != 2 || got.Wanted != 3 {
		t.Errorf("answers %+v, want two followers of three that have agreed before", got)
	}
	// If that does not decide, all are asked again.
	c.forget()
	if n := c.ask(9); n != 3 {
		t.Errorf("%d followers were asked, want all", n)
	}
}

// TestDamagedCopies tests which errors mean a damaged copy, and which are temporary.
func TestDamagedCopies(t *testing.T) {
	for _, err := range []error{context.Canceled, context.DeadlineExceeded, mvcc.ErrCompacted, mvcc.ErrFutureRev, errNoCopy} {
		if damaged(fmt.Errorf("digest: %w", err)) {
			t.Errorf("%v", err)
		}
	}
	if !damaged(errors.New("digest: page 7 already freed")) {
		t.Error("a page that cannot be read")
	}
}

// A leader compares as long as it lives, so a round must not leave goroutines behind.
func TestRoundsLeaveNoGoroutines(t *testing.T) {
	sh, _ := statetest.New(t, &config.Config{}, false)
	st, err := store.Open(store.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	c := &comparison{Shared: sh, copies: &holder{Shared: sh, cur: Copy{Store: st}}, links: func() Links { return linked{} }}
	c.round()
	before := runtime.NumGoroutine()
	for range 100 {
		c.round()
	}
	if after := runtime.NumGoroutine(); after >= before+50 {
		t.Errorf("%d goroutines before, %d after", before, after)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
}
