package worker

import (
	"context"
	"net/netip"
	"testing"

	"github.com/dynast-io/dynast/shared/roster"
	"github.com/dynast-io/dynast/shared/store"
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
