package worker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"go.etcd.io/etcd/server/v3/storage/mvcc"

	"github.com/dynast-io/dynast/shared/roster"
	"github.com/dynast-io/dynast/shared/store"
	"github.com/dynast-io/dynast/shared/wire"
)

func memberAt(port uint16) roster.ID {
	return roster.ID{Address: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port), PID: int(port)}
}

// TestOddOne: who is wrong when hashes differ. 7000 leads with hash 1.
func TestOddOne(t *testing.T) {
	leader, a, b, c := memberAt(7000), memberAt(7001), memberAt(7002), memberAt(7003)
	for name, test := range map[string]struct {
		hashes map[roster.ID]uint32
		want   map[roster.ID]bool
	}{
		"all equal":                        {map[roster.ID]uint32{a: 1, b: 1}, nil},
		"nobody answered":                  {nil, nil},
		"one of two":                       {map[roster.ID]uint32{a: 1, b: 2}, map[roster.ID]bool{b: true}},
		"the only follower":                {map[roster.ID]uint32{a: 2}, map[roster.ID]bool{a: true}},
		"each another":                     {map[roster.ID]uint32{a: 2, b: 3}, map[roster.ID]bool{a: true, b: true}},
		"the leader":                       {map[roster.ID]uint32{a: 2, b: 2}, map[roster.ID]bool{leader: true}},
		"two against two":                  {map[roster.ID]uint32{a: 1, b: 2, c: 2}, map[roster.ID]bool{b: true, c: true}},
		"the leader and a follower, apart": {map[roster.ID]uint32{a: 2, b: 2, c: 3}, map[roster.ID]bool{leader: true}},
	} {
		odd, detail, differs := oddOne(leader, store.Digest{Revision: 9, Hash: 1}, test.hashes)
		got := map[roster.ID]bool{}
		for _, id := range odd {
			got[id] = true
		}
		if differs != (len(test.want) > 0) || len(got) != len(test.want) || detail == "" {
			t.Errorf("%s: %v %t %q", name, odd, differs, detail)
		}
		for id := range test.want {
			if !got[id] {
				t.Errorf("%s: %v, want %s", name, odd, id)
			}
		}
	}
}

// TestLongHoldersAreHurried: whoever holds the copy for long lets go when it is
// to be exchanged, also one that comes just then.
func TestLongHoldersAreHurried(t *testing.T) {
	r := &replica{}
	h, ctx := r.holdLong(context.Background())
	excluded := make(chan struct{})
	go func() {
		release := r.exclude()
		close(excluded)
		release()
	}()
	<-ctx.Done()
	select {
	case <-excluded:
		t.Error("exchanged while it was held")
	default:
	}
	h.release()
	<-excluded
	// And afterwards it can be held again.
	h, ctx = r.holdLong(context.Background())
	if ctx.Err() != nil {
		t.Error("hurried for no reason")
	}
	h.release()
	<-ctx.Done() // nothing is left behind
}

// TestComparisonGoesOnWithoutTheDead: who died is not waited for; who differed,
// or could not be compared, is asked again, who was equal is not.
func TestComparisonGoesOnWithoutTheDead(t *testing.T) {
	leader, a, b := memberAt(7000), memberAt(7001), memberAt(7002)
	m := &Member{service: &service{changed: make(chan struct{}, 1)}}
	m.downstream = newDownstream(m)
	c := newComparison(m)
	listed := func(ids ...roster.ID) {
		r := &roster.Roster{Leader: leader.Address, Members: []roster.Member{{ID: leader, State: roster.Serving}}}
		for _, id := range ids {
			r.Members = append(r.Members, roster.Member{ID: id, State: roster.InSync})
			m.downstream.sessions[id] = &session{id: id, wake: make(chan struct{}, 1)}
		}
		m.publish(r)
	}
	listed(a, b)
	if n := c.ask(9); n != 2 {
		t.Fatalf("%d are asked", n)
	}
	c.answered(a, &wire.Digest{Revision: 9, Hash: 1})
	listed(a)
	c.wait(t.Context()) // not for b
	own := store.Digest{Revision: 9, Hash: 2}
	if got := c.give(&own); len(got) != 1 || got[a] != 1 {
		t.Errorf("answers %v", got)
	}
	c.answered(b, &wire.Digest{Revision: 9, Hash: 1}) // too late
	listed(a, b)
	if n := c.ask(9); n != 2 {
		t.Errorf("%d are asked, one of which differed", n)
	}
	c.answered(a, &wire.Digest{Revision: 9, Hash: 2})
	c.answered(b, &wire.Digest{Revision: 9, Hash: 2})
	c.wait(t.Context())
	c.give(&own)
	if n := c.ask(9); n != 0 {
		t.Errorf("%d are asked again", n)
	}
}

// TestDamagedCopies: what ends a follower, and what is only a bad moment.
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

// TestRoundsLeaveNothingBehind: a leader compares for as long as it lives.
func TestRoundsLeaveNothingBehind(t *testing.T) {
	m := &Member{ended: make(chan struct{}), service: &service{changed: make(chan struct{}, 1)}}
	m.downstream = newDownstream(m)
	m.publish(&roster.Roster{})
	st, err := store.Open(store.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	m.replica = &replica{cur: copyOf{store: st}}
	c := newComparison(m)
	c.round()
	before := runtime.NumGoroutine()
	for range 100 {
		c.round()
	}
	if after := runtime.NumGoroutine(); after >= before+50 {
		t.Errorf("%d goroutines before, %d after", before, after)
	}
	close(m.ended)
	<-m.lifetime().Done()
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
}
