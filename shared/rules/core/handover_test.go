package core

import (
	"slices"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/rules/roster"
)

// known reports that the followers have the current roster and the whole log.
func (b *bench) known(ports ...uint16) []Effect {
	var es []Effect
	for _, p := range ports {
		es = append(es, b.do(Progress{ID: id(p), Index: b.c.appended.Index, Known: b.c.Roster().Version})...)
	}
	return es
}

func TestHandover(t *testing.T) {
	b := staffed(t, 7001, 7002)
	ref := make(chan Answer, 1)
	b.expect(b.do(HandoverRequested{To: id(7002).Address, Ref: ref}), "Publish")
	if h, _ := b.c.Roster().Heir(); h != id(7002).Address {
		t.Fatalf("the heir is %s", h)
	}
	b.expect(b.do(HandoverRequested{}), "Answer") // only one hand-over at a time
	b.expect(b.known(7002))                       // 7001 does not know the successor yet, and could take the lock first
	es := b.known(7001)
	b.expect(es, "Answer", "StopServing")
	if a := find[Answer](t, es); a.Refused != "" || a.Member != id(7002) || a.Ref != any(ref) {
		t.Fatalf("answer %+v", a)
	}
	// A write that was accepted before is still in progress.
	b.do(Appended{Last: pos(1, 2)})
	b.expect(b.do(ServingStopped{}))
	b.expect(b.do(Progress{ID: id(7001), Index: 2}))
	b.do(Synced{Last: pos(1, 2)})
	if e := find[Exit](t, b.do(Progress{ID: id(7002), Index: 2})); e.Code != ExitDone {
		t.Fatalf("exit %+v", e)
	}
}

func TestHandoverIsRefused(t *testing.T) {
	b := staffed(t, 7001, 7002)
	b.do(Overtaken{ID: id(7002)})
	for _, to := range []uint16{7000, 7002, 7003} {
		if a := find[Answer](t, b.do(HandoverRequested{To: id(to).Address, Ref: 1})); a.Refused == "" {
			t.Errorf("to %d: %+v", to, a)
		}
	}
	if a := find[Answer](t, leader(t).do(HandoverRequested{Ref: 1})); a.Refused == "" {
		t.Errorf("a leader without followers: %+v", a)
	}
	b.do(StopRequested{})
	if a := find[Answer](t, b.do(HandoverRequested{Ref: 1})); a.Refused == "" {
		t.Errorf("while it stops: %+v", a)
	}
}

// Until the leader stops serving, a failed hand-over does no harm.
func TestHandoverIsAbandoned(t *testing.T) {
	b := staffed(t, 7001, 7002)
	b.do(HandoverRequested{Ref: 1})
	es := b.do(Died{ID: id(7001), Reason: "SIGKILL"})
	if a := find[Answer](t, es); a.Refused == "" {
		t.Errorf("answer %+v", a)
	}
	if b.c.Roster().Successor.IsValid() || b.c.Role() != Leading {
		t.Errorf("%s, %s", b.c.Role(), b.c.Roster())
	}
	b.do(HandoverRequested{Ref: 1})
	if a := find[Answer](t, b.do(StopRequested{})); a.Refused == "" || b.c.Roster().Successor.IsValid() {
		t.Errorf("stopped: %+v", a)
	}
}

// A hanging follower delays the hand-over for no longer than the heartbeat timeout.
func TestHandoverDoesNotWaitForAFrozenFollower(t *testing.T) {
	b := staffed(t, 7001, 7002)
	b.do(HandoverRequested{Ref: 1})
	var es []Effect
	for range 2*timeout/interval + 1 {
		b.now += interval / 2
		es = append(es, b.known(7001)...)
	}
	find[StopServing](t, es)
}

// The leader has stopped serving, and the successor dies. The leader must not exit before there
// is another successor, or no member would be left.
func TestHandoverFindsAnotherSuccessor(t *testing.T) {
	b := staffed(t, 7001, 7002)
	b.do(HandoverRequested{Ref: 1})
	b.known(7001, 7002)
	b.do(Died{ID: id(7001), Reason: "SIGKILL"})
	b.do(Died{ID: id(7002), Reason: "SIGKILL"})
	es := b.do(ServingStopped{})
	if b.c.Role() != Leading {
		t.Fatalf("the leader exited without a follower: %v", es)
	}
	b.do(Spawned{Member: member(7003, 2, roster.Starting)})
	es = b.do(Joined{Member: member(7003, 2, roster.Starting), Last: pos(1, 1), CanResume: true})
	es = append(es, b.known(7003)...)
	find[Exit](t, es)
}

// A start that becomes due after the leader stopped serving waits for the next leader. Until then
// it must not wake the core again and again.
func TestHandoverHoldsStartsBackQuietly(t *testing.T) {
	b := staffed(t, 7001, 7002)
	dead := uint16(7002)
	for { // until its slot has failed so often that a start is delayed
		b.known(7001)
		es := b.do(Died{ID: id(dead), Reason: "SIGKILL"})
		spawn := slices.IndexFunc(es, func(e Effect) bool { _, ok := e.(Spawn); return ok })
		if spawn < 0 {
			break
		}
		dead++
		m := member(dead, es[spawn].(Spawn).Slot, roster.Starting)
		b.do(Spawned{Member: m})
		b.do(Joined{Member: m, Last: pos(1, 1), CanResume: true})
	}
	b.do(HandoverRequested{Ref: 1})
	b.known(7001)
	if b.c.lead.handover.phase != handoverDraining {
		t.Fatal("the leader still serves clients")
	}
	due, ok := b.c.lead.keeper.Wake()
	if !ok {
		t.Fatal("no start is delayed")
	}
	for b.now < due+interval {
		b.now += interval / 4
		b.known(7001)
		b.expect(b.do(Tick{}))
		b.notBusy()
	}
}

// The successor is first in line. The others give it as much time as a silent leader, and move up
// when it dies.
func TestSuccessorIsFirstInLine(t *testing.T) {
	r := ros(3, 1, 7001, 7002, 7003)
	r.Successor = id(7002).Address
	b := follower(t, 7002, r)
	b.expect(b.do(dead()), "TryLock")

	b = follower(t, 7001, r)
	b.expect(b.do(dead()), "Watch", "Expect")
	if want := b.now + b.c.cfg.TurnDelay + b.c.cfg.HeartbeatTimeout; b.c.Wake() != want {
		t.Errorf("wakes at %s, want %s", b.c.Wake(), want)
	}
	b.now = b.c.Wake()
	b.expect(b.do(Tick{}), "TryLock")

	b = follower(t, 7001, r)
	b.do(dead())
	b.expect(b.do(Died{ID: id(7002)}), "TryLock")
	b = follower(t, 7003, r)
	b.do(dead())
	b.expect(b.do(Died{ID: id(7002)}))
	if want := b.now + b.c.cfg.TurnDelay; b.c.Wake() != want {
		t.Errorf("the third in line wakes at %s, want %s", b.c.Wake(), want)
	}
}

// When the successor leads, it is watched once, as the leader.
func TestLeadingSuccessorIsWatchedOnce(t *testing.T) {
	r := ros(3, 1, 7001, 7002)
	r.Successor = id(7002).Address
	b := follower(t, 7001, r)
	b.do(dead())
	next := &roster.Roster{Epoch: 4, Version: 1, Leader: id(7002).Address, Followers: 2,
		Members: []roster.Member{member(7001, 2, roster.InSync), member(7002, 3, roster.Serving)}}
	b.expect(b.do(Introduced{Roster: next}), "Unwatch", "Unwatch", "Watch", "Follow")
}

// A follower acknowledges the named successor at once, and the successor syncs its log.
func TestFollowersAcknowledgeASuccessor(t *testing.T) {
	b := follower(t, 7001, ros(3, 1, 7001, 7002))
	r := ros(3, 2, 7001, 7002)
	r.Successor = id(7001).Address
	beats := 0
	for _, e := range b.all(Heard{Roster: r, Commit: 5}) {
		switch e.(type) {
		case Beat, Sync:
			beats++
		}
	}
	if beats != 2 {
		t.Errorf("got %d effects, want a heartbeat and a sync", beats)
	}
}

func TestScaleIsKeptByTheNextLeader(t *testing.T) {
	b := staffed(t, 7001, 7002)
	es := b.do(ScaleRequested{Followers: 2, Relative: true, Ref: 1})
	b.expect(es, "Answer", "Publish", "Spawn 4", "Spawn 5")
	if a := find[Answer](t, es); a.Before != 2 || a.Followers != 4 || b.c.Roster().Followers != 4 {
		t.Errorf("answer %+v, roster %d", a, b.c.Roster().Followers)
	}
	for _, n := range []int{-1, MaxFollowers + 1} {
		if a := find[Answer](t, b.do(ScaleRequested{Followers: n, Ref: 1})); a.Refused == "" {
			t.Errorf("%d: %+v", n, a)
		}
	}
	r := ros(3, 1, 7001)
	r.Followers = 1
	f := follower(t, 7001, r)
	if s := find[Spawn](t, f.takesOver()); s.Slot != 1 {
		t.Errorf("starts %+v", s)
	}
	f.expect(f.do(Tick{})) // no more starts
	if f.c.Roster().Followers != 1 {
		t.Errorf("the roster wants %d followers", f.c.Roster().Followers)
	}
}

func TestScaleDown(t *testing.T) {
	b := staffed(t, 7001, 7002)
	es := b.do(ScaleRequested{Followers: 1, Ref: 1})
	b.expect(es, "Answer", "Publish", "Publish", "Dismiss 127.0.0.1:7002") // 7002 is last in line
	if b.state(7002) != "leaving" || b.state(7001) != "in_sync" {
		t.Errorf("%s", b.c.Roster())
	}
	b.expect(b.do(Died{ID: id(7002)}), "Release", "Publish") // it left on purpose: no death, no replacement
	// This follower does not leave.
	b = staffed(t, 7001, 7002)
	b.do(ScaleRequested{Followers: 1, Ref: 1})
	var got []Effect
	for b.now < b.c.now+2*b.c.cfg.StopTimeout && len(got) == 0 {
		b.known(7001, 7002)
		for _, e := range b.pass(interval) {
			if k, ok := e.(Kill); ok && k.ID == id(7002) {
				got = append(got, k)
			}
		}
	}
	if len(got) == 0 {
		t.Error("a dismissed follower that does not leave was not killed")
	}
}

func TestRemovedFollowerIsReplaced(t *testing.T) {
	b := staffed(t, 7001, 7002)
	es := b.do(RemoveRequested{Address: id(7001).Address, Ref: 1})
	b.expect(es, "Answer", "Publish", "Dismiss 127.0.0.1:7001", "Spawn 4")
	for _, port := range []uint16{7001, 7009} { // already leaving; unknown
		if a := find[Answer](t, b.do(RemoveRequested{Address: id(port).Address, Ref: 1})); a.Refused == "" {
			t.Errorf("%d: %+v", port, a)
		}
	}
	// The leader is removed by a hand-over.
	b.expect(b.do(RemoveRequested{Address: id(7000).Address, Ref: 1}), "Publish")
	if b.c.Roster().Successor != id(7002).Address {
		t.Errorf("%s", b.c.Roster())
	}
}

func TestDifferentReplicaIsCondemnedAndKilled(t *testing.T) {
	b := staffed(t, 7001, 7002)
	b.expect(b.do(ReplicaDiffers{ID: id(7001), Detail: "hash"}), "Condemn 2 hash", "Kill 127.0.0.1:7001", "Spawn 4")
	b.expect(b.do(ReplicaDiffers{ID: id(7001), Detail: "hash"})) // reported only once
	es := b.do(Died{ID: id(7001), Reason: "killed"})
	b.expect(es, "Release", "PublishDeaths", "Publish")
	// The leader's own copy differs: it hands over.
	b.expect(b.do(ReplicaDiffers{ID: id(7000), Detail: "hash"}), "Publish")
	if b.c.Roster().Successor != id(7002).Address {
		t.Errorf("%s", b.c.Roster())
	}
	// Acknowledged writes depend on its log until the successor has them.
	b.expect(b.known(7002), "StopServing")
	b.do(Appended{Last: pos(1, 2)})
	b.do(Synced{Last: pos(1, 2)})
	b.expect(b.do(ServingStopped{}))
	b.expect(b.known(7002), "Commit 2", "Replicate", "Condemn 1 hash", "Exit")
}

func TestDefragmentOneAfterTheOther(t *testing.T) {
	b := staffed(t, 7001, 7002)
	b.expect(b.do(DefragmentRequested{Ref: 1}), "Publish", "Defragment 127.0.0.1:7002")
	if a := find[Answer](t, b.do(DefragmentRequested{Ref: 2})); a.Refused == "" {
		t.Errorf("a second request: %+v", a)
	}
	b.expect(b.do(Defragmented{ID: id(7001)})) // it was not asked yet
	b.expect(b.do(Defragmented{ID: id(7002)}), "Publish", "Publish", "Defragment 127.0.0.1:7001")
	if h, _ := b.c.Roster().Heir(); h != id(7002).Address {
		t.Errorf("the heir is %s although it is busy with its database", h)
	}
	// Its stream breaks, so its answer may be lost.
	b.do(Parted{ID: id(7001)})
	es := b.do(Joined{Member: member(7001, 2, roster.Starting), Last: pos(1, 1), CanResume: true})
	b.expect(es, "Defragment 127.0.0.1:7001", "SendFrom")
	b.expect(b.do(Defragmented{ID: id(7001), Error: "no room"}), "Publish", "OweDefrag", "Publish")
	es = b.known(7001, 7002)
	if a := find[Answer](t, es); a.InPlace || a.Refused != "" || a.Member != id(7002) {
		t.Errorf("answer %+v", a)
	}
}

// The named successor would move to the end of the line while it defragments its database.
func TestDefragmentWaitsForAHandover(t *testing.T) {
	b := staffed(t, 7001, 7002)
	b.expect(b.do(DefragmentRequested{Ref: 1}), "Publish", "Defragment 127.0.0.1:7002")
	b.expect(b.do(HandoverRequested{Ref: 2}), "Publish")
	b.expect(b.do(Defragmented{ID: id(7002)}), "Publish")
	if h, _ := b.c.Roster().Heir(); h != id(7001).Address {
		t.Fatalf("the heir is %s", h)
	}
	// The hand-over is abandoned because 7001 lags. The other follower is done, so the leader's
	// database is next.
	es := b.do(Overtaken{ID: id(7001)})
	es = append(es, b.do(Tick{})...)
	if a := find[Answer](t, es); a.Refused == "" || a.Ref != any(2) {
		t.Fatalf("answer %+v", a)
	}
	find[OweDefrag](t, es)
	if b.c.Roster().Successor != id(7002).Address {
		t.Fatalf("roster %s, successor %s", b.c.Roster(), b.c.Roster().Successor)
	}
}

func TestDefragmentWithoutFollowers(t *testing.T) {
	b := leader(t)
	if a := find[Answer](t, b.do(DefragmentRequested{Ref: 1})); !a.InPlace {
		t.Errorf("answer %+v", a)
	}
	b = staffed(t, 7001)
	b.do(DefragmentRequested{Ref: 1})
	if a := find[Answer](t, b.do(Died{ID: id(7001)})); !a.InPlace {
		t.Errorf("the only follower died: %+v", a)
	}
}

// The next owner of the leader's former copy defragments it.
func TestOwedDefragmentation(t *testing.T) {
	b := staffed(t, 7001)
	m := member(7002, 3, roster.Starting)
	m.OwesDefrag = true
	b.do(Spawned{Member: m})
	es := b.do(Joined{Member: m, Last: pos(1, 1), CanResume: true})
	b.expect(es, "SendFrom", "Publish", "Defragment 127.0.0.1:7002", "Publish")
	b.expect(b.do(Defragmented{ID: id(7002)}), "Publish")
	if m, _ := b.c.Roster().Find(id(7002).Address); m.Busy || m.OwesDefrag {
		t.Errorf("%+v", m)
	}
}

// takesOver makes a follower with a log up to 3/12 the leader of epoch 4, after 7000.
func (b *bench) takesOver() []Effect {
	b.do(dead())
	b.do(LockTaken{Succession: named(3, 1, 7000), AnyData: true})
	b.do(Adopted{Last: pos(3, 12), Slot: 2})
	b.do(Appended{Last: pos(4, 13)})
	b.do(Synced{Last: pos(4, 13)})
	return b.do(SuccessionWritten{})
}

// inherits makes a follower on 7001 the leader of epoch 4, after 7000.
func inherits(t *testing.T, r *roster.Roster) *bench {
	f := follower(t, 7001, r)
	f.takesOver()
	if f.c.Role() != Leading {
		t.Fatalf("role %s, want leading", f.c.Role())
	}
	return f
}

// rejoins opens a follower's stream to the leader of epoch 4.
func (b *bench) rejoins(m roster.Member) []Effect {
	return b.do(Joined{Member: m, Last: pos(3, 10), CanResume: true})
}

// A leader died before it dismissed a follower, or the follower did not get the message. The next
// leader keeps only the wanted number.
func TestTooManyFollowersAreRetiredByTheNextLeader(t *testing.T) {
	r := ros(3, 1, 7001, 7002, 7003)
	r.Followers = 1
	r.Members[3].State = roster.Leaving
	b := inherits(t, r)
	b.expect(b.do(Tick{}), "Publish", "Dismiss 127.0.0.1:7003")
	if b.state(7002) != "in_sync" {
		t.Errorf("%s", b.c.Roster())
	}
	b.expect(b.do(Tick{}))
}

// No follower is retired during a hand-over, because it could be the successor.
func TestNoFollowerIsRetiredInAHandover(t *testing.T) {
	r := ros(3, 1, 7001, 7002, 7003)
	r.Followers = 1
	b := inherits(t, r)
	b.c.lead.settled = b.now + timeout
	b.rejoins(member(7002, 3, roster.InSync))
	b.expect(b.do(HandoverRequested{To: id(7003).Address, Ref: 1}), "Publish")
	b.now = b.c.lead.settled
	for _, e := range b.known(7002) {
		if d, ok := e.(Dismiss); ok {
			t.Errorf("%+v", d)
		}
	}
}

// All followers die after the leader stopped serving, and none is wanted. The leader needs a
// follower to hand over to.
func TestHandoverWithoutWantedFollowers(t *testing.T) {
	b := leader(t)
	b.do(ScaleRequested{Followers: 0, Ref: 1})
	b.do(SpawnFailed{Slot: 2})
	b.do(SpawnFailed{Slot: 3})
	m := member(7001, find[Admit](t, b.do(JoinRequested{Member: member(7001, 0, roster.Starting), Ref: 1})).Slot, roster.Starting)
	m.ByHand = true
	b.do(Joined{Member: m, Last: pos(1, 1), CanResume: true})
	b.do(HandoverRequested{Ref: 1})
	find[StopServing](t, b.known(7001))
	es := b.do(Died{ID: id(7001), Reason: "SIGKILL"})
	es = append(es, b.do(ServingStopped{})...)
	es = append(es, b.pass(2*time.Second)...)
	spawns := 0
	for _, e := range es {
		if _, ok := e.(Spawn); ok {
			spawns++
		}
	}
	if spawns != 1 {
		t.Errorf("%d starts: %v", spawns, es)
	}
}

// A follower was defragmenting and has fallen behind when another member takes over. It is asked
// again when it is in sync, and does not stay busy forever.
func TestBusyFollowerIsNotBusyForEver(t *testing.T) {
	r := ros(3, 1, 7001, 7002)
	r.Members[2].Busy, r.Members[2].State = true, roster.Lagging
	b := inherits(t, r)
	es := b.rejoins(member(7002, 3, roster.Lagging))
	find[Defragment](t, es)
	b.do(Defragmented{ID: id(7002)})
	if m, _ := b.c.Roster().Find(id(7002).Address); m.Busy || m.State != roster.InSync {
		t.Errorf("%+v", m)
	}
	// Or it finishes before.
	r = ros(3, 1, 7001, 7002)
	r.Members[2].Busy, r.Members[2].State = true, roster.Lagging
	b = inherits(t, r)
	b.do(Defragmented{ID: id(7002)})
	if m, _ := b.c.Roster().Find(id(7002).Address); m.Busy {
		t.Errorf("%+v", m)
	}
}

// A copy that was to be defragmented when the leader died is still to be defragmented.
func TestOwedDefragmentationOutlivesALeader(t *testing.T) {
	r := ros(3, 1, 7001, 7002)
	r.Members[2].OwesDefrag = true
	b := inherits(t, r)
	m := member(7002, 3, roster.InSync)
	m.OwesDefrag = true
	find[Defragment](t, b.rejoins(m))
}

// The successor does not begin to defragment its database, because it could not serve meanwhile.
// If it does not succeed after all, it begins.
func TestSuccessorDoesNotDefragment(t *testing.T) {
	b := staffed(t, 7001, 7002)
	b.do(DefragmentRequested{Ref: 1})
	b.do(HandoverRequested{To: id(7001).Address, Ref: 2})
	b.expect(b.do(Defragmented{ID: id(7002)}), "Publish")
	if h, _ := b.c.Roster().Heir(); h != id(7001).Address {
		t.Errorf("the heir is %s", h)
	}
	b = staffed(t, 7001, 7002)
	b.do(DefragmentRequested{Ref: 1})
	b.do(HandoverRequested{To: id(7001).Address, Ref: 2})
	b.do(Defragmented{ID: id(7002)})
	es := b.do(Died{ID: id(7001), Reason: "SIGKILL"}) // the hand-over is abandoned
	find[OweDefrag](t, es)
	if b.c.Roster().Successor != id(7002).Address {
		t.Errorf("%s", b.c.Roster())
	}
}

// The leader's own copy is condemned only when another member has everything. Until then the
// leader leads with it, and acknowledged writes depend on it.
func TestLeadersCopyIsCondemnedAfterItHandedOver(t *testing.T) {
	b := staffed(t, 7001, 7002)
	b.expect(b.do(ReplicaDiffers{ID: id(7000), Detail: "hash"}), "Publish")
	b.do(Died{ID: id(7001), Reason: "SIGKILL"})
	if b.c.Roster().Successor.IsValid() {
		t.Fatalf("%s", b.c.Roster())
	}
	b.do(ReplicaDiffers{ID: id(7000), Detail: "hash"})
	b.expect(b.known(7002), "StopServing")
	b.expect(b.do(ServingStopped{}), "Condemn 1 hash", "Exit")
}

// The writer can report an append after it reported that serving has stopped. The successor needs
// that entry too.
func TestHandoverKnowsWhereTheLogEnds(t *testing.T) {
	b := staffed(t, 7001, 7002)
	b.do(HandoverRequested{Ref: 1})
	for _, p := range []uint16{7001, 7002} {
		b.do(Progress{ID: id(p), Index: 1, Known: b.c.roster.Version})
	}
	b.do(Synced{Last: pos(1, 1)})
	es := b.do(ServingStopped{Last: pos(1, 3)})
	b.expect(es, "Replicate", "Sync")
	b.expect(b.do(Synced{Last: pos(1, 3)}))
	find[Exit](t, append(b.do(Progress{ID: id(7001), Index: 3}), b.do(Progress{ID: id(7002), Index: 3})...))
}

// Only a leader that has handed over and then ends by itself has left; all others were lost.
func TestLeaderLeftOrLost(t *testing.T) {
	for reason, want := range map[string]Kind{"exit status 0": LeaderLeft, "gone": LeaderLeft, "signal: killed": LeaderLost} {
		r := ros(1, 2, 7001, 7002)
		r.Successor = id(7002).Address
		b := follower(t, 7001, r)
		if ks := kinds(b.all(Died{ID: id(7000), Reason: reason})); ks[0] != want {
			t.Errorf("%s: reports %v, want %s", reason, ks, want)
		}
	}
	b := follower(t, 7001, ros(1, 2, 7001, 7002))
	if ks := kinds(b.all(Died{ID: id(7000), Reason: "exit status 0"})); ks[0] != LeaderLost {
		t.Errorf("without a hand-over: reports %v", ks)
	}
}
