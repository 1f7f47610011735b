package core

import (
	"maps"
	"strings"
	"testing"

	"github.com/dynast-io/dynast/shared/rules/roster"
)

// TestJudge tests which copies are wrong if checksums differ. The leader is 7000, with checksum 1.
func TestJudge(t *testing.T) {
	leader, a, b, c := id(7000), id(7001), id(7002), id(7003)
	const decided, undecided = false, true
	for name, test := range map[string]struct {
		agreed, wanted int
		others         map[roster.ID]uint32
		want           map[roster.ID]bool
	}{
		"all equal":                             {0, 2, map[roster.ID]uint32{a: 1, b: 1}, nil},
		"no answers":                            {0, 2, nil, nil},
		"one of two":                            {0, 2, map[roster.ID]uint32{a: 1, b: 2}, map[roster.ID]bool{b: decided}},
		"the only follower":                     {0, 1, map[roster.ID]uint32{a: 2}, map[roster.ID]bool{a: decided}},
		"one of two, the other not in sync yet": {0, 2, map[roster.ID]uint32{a: 2}, map[roster.ID]bool{a: undecided}},
		"all different, a third to come":        {0, 3, map[roster.ID]uint32{a: 2, b: 3}, map[roster.ID]bool{a: undecided, b: undecided}},
		"one of three, one to come":             {0, 3, map[roster.ID]uint32{a: 1, b: 2}, map[roster.ID]bool{b: decided}},
		"two against two, one to come":          {1, 4, map[roster.ID]uint32{b: 2, c: 2}, map[roster.ID]bool{b: undecided, c: undecided}},
		"the leader, one to come":               {0, 3, map[roster.ID]uint32{a: 2, b: 2}, map[roster.ID]bool{leader: decided}},
		"one of two, the other compared before": {1, 2, map[roster.ID]uint32{b: 2}, map[roster.ID]bool{b: decided}},
		"all different":                         {0, 2, map[roster.ID]uint32{a: 2, b: 3}, map[roster.ID]bool{a: decided, b: decided}},
		"the leader":                            {0, 2, map[roster.ID]uint32{a: 2, b: 2}, map[roster.ID]bool{leader: decided}},
		"two against two":                       {0, 3, map[roster.ID]uint32{a: 1, b: 2, c: 2}, map[roster.ID]bool{b: decided, c: decided}},
		"two against two, one compared before":  {1, 3, map[roster.ID]uint32{b: 2, c: 2}, map[roster.ID]bool{b: decided, c: decided}},
		"the leader and a follower differ":      {0, 3, map[roster.ID]uint32{a: 2, b: 2, c: 3}, map[roster.ID]bool{leader: decided}},
	} {
		got := map[roster.ID]bool{}
		for _, d := range (Copies{Leader: leader, Own: 1, Others: test.others, Agreed: test.agreed, Wanted: test.wanted}).Judge("detail") {
			got[d.ID] = d.Undecided
			if !strings.HasPrefix(d.Detail, "detail, 127.0.0.1:700") {
				t.Errorf("%s: the detail is %q", name, d.Detail)
			}
		}
		if !maps.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

// While a further copy is to come, nothing is deleted. That is reported once.
func TestUndecidedDifference(t *testing.T) {
	b := staffed(t, 7001, 7002)
	undecided := ReplicaDiffers{ID: id(7001), Detail: "hash", Undecided: true}
	es := b.all(undecided)
	b.expect(es, "Report")
	if r := find[Report](t, es); r.Kind != Differs || r.Member != id(7001) || !strings.Contains(r.Detail, "further copy") {
		t.Errorf("the report is %+v", r)
	}
	b.expect(b.all(undecided))
	b.expect(b.do(ReplicaDiffers{ID: id(7001), Detail: "hash"}), "Condemn 2 hash", "Kill 127.0.0.1:7001", "Spawn 4")
}
