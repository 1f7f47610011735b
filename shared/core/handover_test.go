package core

import (
	"slices"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/roster"
)

// known says that the followers have the current roster, and all of the log.
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
	b.expect(b.do(HandoverRequested{}), "Answer") // one at a time
	b.expect(b.known(7002))                       // 7001 could take the lock from under the successor
	es := b.known(7001)
	b.expect(es, "Answer", "StopServing")
	if a := find[Answer](t, es); a.Refused != "" || a.Member != id(7002) || a.Ref != any(ref) {
		t.Fatalf("answer %+v", a)
	}
	// A write that was taken before is on its way.
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
		t.Errorf("to nobody: %+v", a)
	}
	b.do(StopRequested{})
	if a := find[Answer](t, b.do(HandoverRequested{Ref: 1})); a.Refused == "" {
		t.Errorf("while it stops: %+v", a)
	}
}

// Until clients are told to go, a hand-over that cannot be is no harm.
func TestHandoverIsGivenUp(t *testing.T) {
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

// A follower that hangs does not hold it up for longer than one is taken for dead.
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

// Nobody is served any more, and the successor dies: the leader must not end
// before there is another, or nobody would be left.
func TestHandoverFindsAnotherSuccessor(t *testing.T) {
	b := staffed(t, 7001, 7002)
	b.do(HandoverRequested{Ref: 1})
	b.known(7001, 7002)
	b.do(Died{ID: id(7001), Reason: "SIGKILL"})
	b.do(Died{ID: id(7002), Reason: "SIGKILL"})
	es := b.do(ServingStopped{})
	if b.c.Role() != Leading {
		t.Fatalf("ended with no follower: %v", es)
	}
	b.do(Spawned{Member: member(7003, 2, roster.Starting)})
	es = b.do(Joined{Member: member(7003, 2, roster.Starting), Last: pos(1, 1), CanResume: true})
	es = append(es, b.known(7003)...)
	find[Exit](t, es)
}

// A start that was due when clients were told to go waits for the next leader;
// until then it is no reason to wake at once, again and again.
func TestHandoverHoldsStartsBackQuietly(t *testing.T) {
	b := staffed(t, 7001, 7002)
	dead := uint16(7002)
	for { // until its slot failed so often that a start is delayed
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
		t.Fatal("clients are served as before")
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

// The successor is first, and the others give it time.
func TestSuccessorIsFirstInLine(t *testing.T) {
	r := ros(3, 1, 7001, 7002)
	r.Successor = id(7002).Address
	b := follower(t, 7002, r)
	b.expect(b.do(dead()), "TryLock")
	b = follower(t, 7001, r)
	b.do(dead())
	if want := b.now + (1+handoverPatience)*b.c.cfg.TurnDelay; b.c.Wake() != want {
		t.Errorf("wakes at %s, want %s", b.c.Wake(), want)
	}
}

// A follower tells at once that it knows, and the successor syncs what it has.
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
		t.Errorf("%d of a heartbeat and a sync", beats)
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
	f.do(dead())
	f.do(LockTaken{Succession: named(3, 1, 7000), AnyData: true})
	f.do(Adopted{Last: pos(3, 12), Slot: 2})
	f.do(Appended{Last: pos(4, 13)})
	f.do(Synced{Last: pos(4, 13)})
	if s := find[Spawn](t, f.do(SuccessionWritten{})); s.Slot != 1 {
		t.Errorf("starts %+v", s)
	}
	f.expect(f.do(Tick{})) // and no more
	if f.c.Roster().Followers != 1 {
		t.Errorf("%d followers are kept", f.c.Roster().Followers)
	}
}

func TestScaleDown(t *testing.T) {
	b := staffed(t, 7001, 7002)
	es := b.do(ScaleRequested{Followers: 1, Ref: 1})
	b.expect(es, "Answer", "Publish", "Publish", "Dismiss 127.0.0.1:7002") // the last in line
	if b.state(7002) != "leaving" || b.state(7001) != "in_sync" {
		t.Errorf("%s", b.c.Roster())
	}
	b.expect(b.do(Died{ID: id(7002)}), "Release", "Publish") // on purpose: no death, no replacement
	// One that does not go.
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
		t.Error("it stays for ever")
	}
}

func TestRemovedFollowerIsReplaced(t *testing.T) {
	b := staffed(t, 7001, 7002)
	es := b.do(RemoveRequested{Address: id(7001).Address, Ref: 1})
	b.expect(es, "Answer", "Publish", "Dismiss 127.0.0.1:7001", "Spawn 4")
	for _, port := range []uint16{7001, 7009} { // leaving already; unknown
		if a := find[Answer](t, b.do(RemoveRequested{Address: id(port).Address, Ref: 1})); a.Refused == "" {
			t.Errorf("%d: %+v", port, a)
		}
	}
	// The leader goes by handing over.
	b.expect(b.do(RemoveRequested{Address: id(7000).Address, Ref: 1}), "Publish")
	if b.c.Roster().Successor != id(7002).Address {
		t.Errorf("%s", b.c.Roster())
	}
}

func TestDifferentReplicaIsCondemnedAndKilled(t *testing.T) {
	b := staffed(t, 7001, 7002)
	b.expect(b.do(ReplicaDiffers{ID: id(7001), Detail: "hash"}), "Condemn 2 hash", "Kill 127.0.0.1:7001", "Spawn 4")
	b.expect(b.do(ReplicaDiffers{ID: id(7001), Detail: "hash"})) // once
	es := b.do(Died{ID: id(7001), Reason: "killed"})
	b.expect(es, "Release", "PublishDeaths", "Publish")
	// The leader's own: it goes.
	b.expect(b.do(ReplicaDiffers{ID: id(7000), Detail: "hash"}), "Publish")
	if b.c.Roster().Successor != id(7002).Address {
		t.Errorf("%s", b.c.Roster())
	}
	// Its log is what acknowledged writes rest on, until the successor has them.
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
		t.Errorf("twice: %+v", a)
	}
	b.expect(b.do(Defragmented{ID: id(7001)})) // nobody asked it yet
	b.expect(b.do(Defragmented{ID: id(7002)}), "Publish", "Publish", "Defragment 127.0.0.1:7001")
	if h, _ := b.c.Roster().Heir(); h != id(7002).Address {
		t.Errorf("the heir is %s, busy with its database", h)
	}
	// Its stream breaks: what it answered may be lost.
	b.do(Parted{ID: id(7001)})
	es := b.do(Joined{Member: member(7001, 2, roster.Starting), Last: pos(1, 1), CanResume: true})
	b.expect(es, "Defragment 127.0.0.1:7001", "SendFrom")
	b.expect(b.do(Defragmented{ID: id(7001), Error: "no room"}), "Publish", "OweDefrag", "Publish")
	es = b.known(7001, 7002)
	if a := find[Answer](t, es); a.InPlace || a.Refused != "" || a.Member != id(7002) {
		t.Errorf("answer %+v", a)
	}
}

// The one that is to succeed would be last in line while it rewrites its
// database.
func TestDefragmentWaitsForAHandover(t *testing.T) {
	b := staffed(t, 7001, 7002)
	b.expect(b.do(DefragmentRequested{Ref: 1}), "Publish", "Defragment 127.0.0.1:7002")
	b.expect(b.do(HandoverRequested{Ref: 2}), "Publish")
	b.expect(b.do(Defragmented{ID: id(7002)}), "Publish")
	if h, _ := b.c.Roster().Heir(); h != id(7001).Address {
		t.Fatalf("the heir is %s", h)
	}
	// It is given up: 7001 lags. The other one is done, so the leader's is next.
	es := b.do(Overtaken{ID: id(7001)})
	es = append(es, b.do(Tick{})...)
	if a := find[Answer](t, es); a.Refused == "" || a.Ref != any(2) {
		t.Fatalf("answer %+v", a)
	}
	find[OweDefrag](t, es)
	if b.c.Roster().Successor != id(7002).Address {
		t.Fatalf("%s, to be succeeded by %s", b.c.Roster(), b.c.Roster().Successor)
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

// The copy that was the leader's is rewritten by whoever has it next.
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

// inherits makes a follower on 7001 the leader of epoch 4, after 7000.
func inherits(t *testing.T, r *roster.Roster) *bench {
	f := follower(t, 7001, r)
	f.do(dead())
	f.do(LockTaken{Succession: named(3, 1, 7000), AnyData: true})
	f.do(Adopted{Last: pos(3, 12), Slot: 2})
	f.do(Appended{Last: pos(4, 13)})
	f.do(Synced{Last: pos(4, 13)})
	f.do(SuccessionWritten{})
	if f.c.Role() != Leading {
		t.Fatalf("it is %s", f.c.Role())
	}
	return f
}

// rejoins opens the stream of a follower to the leader of epoch 4.
func (b *bench) rejoins(m roster.Member) []Effect {
	return b.do(Joined{Member: m, Last: pos(3, 10), CanResume: true})
}

// A leader that died before it had told a follower to leave, or after it had
// told one that did not hear it: the next one keeps no more than are wanted.
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

// Nobody is retired while the leader hands over: it could be the successor.
func TestNobodyIsRetiredInAHandover(t *testing.T) {
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

// All followers die when nobody is served any more, and none is wanted: there
// has to be one to hand over to.
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

// A follower that is rewriting its database and has fallen behind when another
// takes over: it is asked again when it is in sync, and not busy for ever.
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
	// Or it is done before.
	r = ros(3, 1, 7001, 7002)
	r.Members[2].Busy, r.Members[2].State = true, roster.Lagging
	b = inherits(t, r)
	b.do(Defragmented{ID: id(7002)})
	if m, _ := b.c.Roster().Find(id(7002).Address); m.Busy {
		t.Errorf("%+v", m)
	}
}

// A copy that was to be rewritten when its leader died is still to be.
func TestOwedDefragmentationOutlivesALeader(t *testing.T) {
	r := ros(3, 1, 7001, 7002)
	r.Members[2].OwesDefrag = true
	b := inherits(t, r)
	m := member(7002, 3, roster.InSync)
	m.OwesDefrag = true
	find[Defragment](t, b.rejoins(m))
}

// The successor does not begin to rewrite its database: it could not serve
// until that is done. If it does not succeed after all, it does begin.
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
	es := b.do(Died{ID: id(7001), Reason: "SIGKILL"}) // the hand-over is given up
	find[OweDefrag](t, es)
	if b.c.Roster().Successor != id(7002).Address {
		t.Errorf("%s", b.c.Roster())
	}
}

// The leader's own copy is condemned when another has everything: until then it
// is the one that leads, and what acknowledged writes rest on.
func TestLeaderIsCondemnedWhenItGoes(t *testing.T) {
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
