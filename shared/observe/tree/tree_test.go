package tree

import "testing"

func TestMembers(t *testing.T) {
	tr := &Tree{Leader: "b", Members: []Member{
		{Address: "a", PID: 1, State: "in_sync"}, {Address: "b", PID: 2, State: "serving"}, {Address: "c", PID: 3, State: "lagging"},
	}}
	if m, ok := tr.MemberAt("c"); !ok || m.PID != 3 {
		t.Errorf("the member at c is %+v, %t", m, ok)
	}
	if m, ok := tr.MemberAt(""); ok {
		t.Errorf("a member without an address: %+v", m)
	}
	if m := tr.LeaderMember(); m.PID != 2 {
		t.Errorf("the leader is %+v", m)
	}
	if ms := tr.FollowerMembers(); len(ms) != 2 || ms[0].PID != 1 || ms[1].PID != 3 {
		t.Errorf("the followers are %+v", ms)
	}
	if n := tr.InSync(); n != 1 {
		t.Errorf("%d in sync, want 1", n)
	}
	if m := new(Tree).LeaderMember(); m.PID != 0 {
		t.Errorf("a tree without a leader has the leader %+v", m)
	}
}
