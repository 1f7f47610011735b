package core

import (
	"slices"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/rules/roster"
)

func TestDeadFollowerIsReplacedAtOnce(t *testing.T) {
	b := staffed(t, 7001, 7002)
	es := b.do(Died{ID: id(7001), Reason: "SIGKILL"})
	b.expect(es, "Release 127.0.0.1:7001", "PublishDeaths 1", "Publish", "Spawn 2")
	b.expect(b.do(Died{ID: id(7001)})) // reported once
	b.do(Spawned{Member: member(7003, 2, roster.Starting)})
	if d := b.c.Deaths()[0]; d.ReplacedBy != id(7003).Address || d.Reason != "SIGKILL" {
		t.Fatalf("death %+v", d)
	}
}

func TestSilentFollowerIsKilledDroppedReplaced(t *testing.T) {
	b := staffed(t, 7001, 7002)
	var es []Effect
	for range 22 {
		es = append(es, b.pass(interval/2)...)
		es = append(es, b.do(Progress{ID: id(7002), Index: 1})...)
	}
	b.expect(es, "Kill 127.0.0.1:7001", "Spawn 4")
	if b.state(7001) != "in_sync" {
		t.Error("the follower was dropped before its death was certain")
	}
	b.do(Died{ID: id(7001), Reason: "killed"})
	if d := b.c.Deaths()[0]; d.Reason == "killed" || b.state(7001) != "unknown" {
		t.Errorf("death %+v", d)
	}
}

func TestStoppedLeaderKillsNobody(t *testing.T) {
	b := staffed(t, 7001, 7002)
	b.now += time.Minute
	b.expect(b.do(Tick{}))
}

// A start that takes longer than the heartbeat timeout is not silence. It must not wake the core
// again and again.
func TestSlowStart(t *testing.T) {
	b := leader(t)
	b.do(Spawned{Member: member(7001, 2, roster.Starting)})
	b.expect(b.pass(2 * timeout))
	b.notBusy()
	es := b.pass(9 * time.Second)
	b.expect(es, "Kill 127.0.0.1:7001", "AbortSpawn 3", "Spawn 4")
}

func TestFailingStartsSlowDown(t *testing.T) {
	b := leader(t)
	delayed := 0
	for range 8 {
		es := b.all(SpawnFailed{Slot: 2, Reason: "exit status 1"})
		for _, k := range kinds(es) {
			if k == SpawnDelayed {
				delayed++
			}
		}
		b.now = max(b.now, b.c.Wake())
		b.do(Tick{})
	}
	if delayed < 3 {
		t.Errorf("%d of 8 starts were delayed", delayed)
	}
}

func TestBusySlotIsNotUsed(t *testing.T) {
	b := leader(t)
	b.expect(b.do(SpawnFailed{Slot: 2, SlotBusy: true}), "Spawn 4")
}

// Spawned can come after the process has joined or died.
func TestLateSpawned(t *testing.T) {
	b := leader(t)
	b.do(Joined{Member: member(7001, 2, roster.Starting), Last: pos(1, 1), CanResume: true})
	b.expect(b.do(Spawned{Member: roster.Member{ID: id(7001), Slot: 2, Plugin: "socket"}}), "Publish")
	if m, _ := b.c.Roster().Find(id(7001).Address); m.Plugin != "socket" || m.State != roster.InSync {
		t.Fatalf("member %+v", m)
	}
	b.do(Joined{Member: member(7002, 3, roster.Starting), Last: pos(1, 1), CanResume: true})
	b.expect(b.do(Died{ID: id(7002)}), "Release", "PublishDeaths 1", "Publish", "Spawn 3")
	b.expect(b.do(Spawned{Member: member(7002, 3, roster.Starting)}))
	if len(b.c.Deaths()) != 1 || b.state(7002) != "unknown" {
		t.Errorf("a dead process came back: %s", b.c.Roster())
	}
}

func TestJoinedIsSentWhatItLacks(t *testing.T) {
	b := leader(t)
	b.do(Appended{Last: pos(1, 5000)})
	m := member(7001, 2, roster.Starting)
	b.do(Spawned{Member: m})
	b.expect(b.do(Joined{Member: m, Last: pos(1, 7), CanResume: true}), "SendFrom 127.0.0.1:7001 (pid 7001) 7")
	if b.state(7001) != "starting" {
		t.Errorf("far behind, but %s", b.state(7001))
	}
	find[Publish](t, b.do(Progress{ID: m.ID, Index: 4999}))
	if b.state(7001) != "in_sync" {
		t.Errorf("close, but %s", b.state(7001))
	}
	// Its log differs, so it gets the database.
	es := b.do(Joined{Member: m, Last: pos(1, 9000)})
	if find[SendSnapshot](t, es).ID != m.ID || b.state(7001) != "starting" {
		t.Errorf("effects %v", es)
	}
}

func TestOvertakenAndLagging(t *testing.T) {
	b := staffed(t, 7001, 7002)
	b.do(Appended{Last: pos(1, 3)})
	b.do(Synced{Last: pos(1, 3)})
	es := b.do(Overtaken{ID: id(7001)})
	if find[SendSnapshot](t, es).ID != id(7001) || b.state(7001) != "lagging" {
		t.Fatalf("effects %v", es)
	}
	b.do(Appended{Last: pos(1, 1<<17)})
	b.do(Progress{ID: id(7002), Index: 4})
	if b.state(7002) != "lagging" {
		t.Fatalf("%d entries behind, but %s", 1<<17-4, b.state(7002))
	}
	// Neither follower counts: only the disk decides.
	if e := find[Commit](t, b.do(Synced{Last: pos(1, 1<<17)})); e.Index != 1<<17 {
		t.Errorf("commit %d", e.Index)
	}
	b.do(Progress{ID: id(7002), Index: 1 << 17})
	if b.state(7002) != "in_sync" {
		t.Errorf("caught up, but %s", b.state(7002))
	}
}

func TestUnwantedProcessesAreDismissed(t *testing.T) {
	b := staffed(t, 7001, 7002)
	for _, m := range []roster.Member{
		member(7005, 5, roster.Starting), // more than wanted
		member(7006, 2, roster.Starting), // the slot is taken
		member(7007, 1, roster.Starting), // the slot is the leader's own
		member(7008, 0, roster.Starting), // no slot
	} {
		b.expect(b.do(Joined{Member: m, CanResume: true}), "Watch "+m.ID.String(), "Dismiss "+m.ID.String()+" not needed")
	}
	// Another leader started this process, and this leader has a start of its own in progress for
	// the slot.
	b = leader(t)
	b.do(Joined{Member: member(7009, 2, roster.Starting), Last: pos(1, 1), CanResume: true})
	if b.state(7009) != "in_sync" {
		t.Errorf("the accepted process is %s", b.state(7009))
	}
}

func TestFollowersByHandDoNotCount(t *testing.T) {
	b := leader(t)
	a := find[Admit](t, b.do(JoinRequested{Member: roster.Member{ID: id(7009)}}))
	if a.Slot != 4 {
		t.Fatalf("admitted to slot %d", a.Slot)
	}
	if a := find[Admit](t, b.do(JoinRequested{Member: roster.Member{ID: id(7009)}})); a.Slot != 0 {
		t.Errorf("the same address was admitted twice")
	}
	b.do(Joined{Member: member(7009, 4, roster.Starting), Last: pos(1, 1), CanResume: true})
	for i, p := range []uint16{7001, 7002} {
		b.do(Spawned{Member: member(p, i+2, roster.Starting)})
		b.do(Joined{Member: member(p, i+2, roster.Starting), Last: pos(1, 1), CanResume: true})
	}
	find[Spawn](t, b.do(Died{ID: id(7001)})) // the follower that joined by hand does not replace it
	for _, e := range b.do(Died{ID: id(7009)}) {
		if _, ok := e.(Spawn); ok {
			t.Error("a follower that joined by hand was replaced")
		}
	}
}

func TestPublishedRostersDoNotChange(t *testing.T) {
	b := leader(t)
	before := b.c.Roster()
	text := before.String()
	b.do(Spawned{Member: member(7001, 2, roster.Starting)})
	after := b.c.Roster()
	if before.String() != text || !after.Newer(before) || after.Epoch != before.Epoch {
		t.Errorf("before %s, after %s", before, after)
	}
	if after.Client != "127.0.0.1:2379" {
		t.Errorf("client address %q", after.Client)
	}
}

func TestSiblingThatWasLeavingStays(t *testing.T) {
	r := ros(3, 1, 7001, 7002)
	r.Members[2].State = roster.Leaving
	b := follower(t, 7001, r)
	b.do(dead())
	b.do(LockTaken{Succession: named(3, 1, 7000)})
	b.do(Adopted{Last: pos(3, 12), Slot: 2})
	b.do(Appended{Last: pos(4, 13)})
	b.do(Synced{Last: pos(4, 13)})
	b.do(SuccessionWritten{})
	b.do(Joined{Member: member(7002, 3, roster.Starting), Last: pos(3, 12), CanResume: true})
	if b.state(7002) != "in_sync" {
		t.Errorf("the sibling is %s", b.state(7002))
	}
}

func TestStopInOrder(t *testing.T) {
	b := staffed(t, 7001, 7002)
	b.expect(b.do(StopRequested{Reason: "asked"}), "StopServing")
	es := b.do(ServingStopped{})
	b.expect(es, "Publish", "Dismiss 127.0.0.1:7001", "Dismiss 127.0.0.1:7002")
	if b.state(7001) != "leaving" {
		t.Errorf("a follower that must leave is %s", b.state(7001))
	}
	b.expect(b.do(JoinRequested{Member: roster.Member{ID: id(7009)}}), "Admit slot 0 the cluster is being stopped")
	es = b.all(Died{ID: id(7001)})
	if ks := kinds(es); len(ks) != 1 || ks[0] != MemberLeft {
		t.Errorf("reports %v of a follower that left in order", ks)
	}
	b.expect(b.do(Died{ID: id(7002)}), "Release", "Publish", "Exit 0: asked")
	if len(b.c.Deaths()) != 0 {
		t.Error("a follower that left in order is in the history of deaths")
	}
}

func TestStopKillsFollowersThatDoNotLeave(t *testing.T) {
	b := staffed(t, 7001)
	b.do(StopRequested{Reason: "asked"})
	if es := b.all(SpawnFailed{Slot: 3}); len(es) != 0 { // its start was aborted
		t.Errorf("effects %v", es)
	}
	b.do(ServingStopped{})
	for range 250 {
		b.do(Progress{ID: id(7001), Index: 1})
		if es := b.pass(interval / 2); len(es) > 0 {
			b.expect(es, "Kill 127.0.0.1:7001")
			es := b.all(Died{ID: id(7001)})
			if ks := kinds(es); ks[0] != MemberDied {
				t.Errorf("reports %v of a follower that was killed", ks)
			}
			return
		}
	}
	t.Error("a follower that did not leave was not killed")
}

func TestSecondStopDoesNotWait(t *testing.T) {
	b := staffed(t, 7001, 7002)
	b.do(StopRequested{Reason: "asked"})
	es := b.do(StopRequested{Reason: "asked again"})
	b.expect(es, "Publish", "Dismiss 127.0.0.1:7001", "Dismiss 127.0.0.1:7002", "Kill 127.0.0.1:7001", "Kill 127.0.0.1:7002")
}

func TestViewIsACopy(t *testing.T) {
	b := staffed(t, 7001)
	v := b.c.View(b.now + time.Second)
	b.do(Progress{ID: id(7001), Index: 1})
	if f := v.Followers[id(7001).Address]; f.Match != 1 || f.HeartbeatAge < time.Second || v.Role != Leading {
		t.Errorf("view %+v", v)
	}
}

// A follower that opens a large copy is silent, but seen working.
func TestWorkingProcessGetsMoreTimeToStart(t *testing.T) {
	b := leader(t)
	b.do(Spawned{Member: member(7001, 2, roster.Starting)})
	b.do(Spawned{Member: member(7002, 3, roster.Starting)})
	for range 8 {
		b.expect(b.pass(8 * time.Second))
		b.do(Working{ID: id(7001)})
		b.do(Working{ID: id(7002)})
		b.do(Working{ID: id(7999)}) // an unknown process
	}
	b.expect(b.pass(9 * time.Second))
	b.notBusy()
	b.do(Working{ID: id(7002)})
	b.expect(b.pass(2*time.Second), "Kill 127.0.0.1:7001", "Spawn 4")
}

// The next leader does not take a follower for silent that has not joined yet.
func TestAdoptedStartContinues(t *testing.T) {
	r := ros(3, 1, 7001, 7002, 7003)
	for i, m := range r.Members {
		if m.Address == id(7002).Address {
			r.Members[i].State = roster.Starting
		}
	}
	b := follower(t, 7001, r)
	b.takesOver()
	b.expect(b.pass(3*timeout), "Kill 127.0.0.1:7003", "Spawn 1") // 7003 is not starting
	b.do(Working{ID: id(7002)})
	b.expect(b.pass(8*time.Second), "AbortSpawn 1") // nothing showed that this start was working
	if b.state(7002) != "starting" {
		t.Errorf("7002 is %s", b.state(7002))
	}
	b.expect(b.pass(3*time.Second), "Kill 127.0.0.1:7002", "Spawn 5")
}

// A cluster that has just been started is not degraded while its first followers start, unless one
// of them fails.
func TestDegradedOnlyAfterAFailure(t *testing.T) {
	if es := leader(t).pass(time.Second); len(kinds(es)) != 0 {
		t.Errorf("reports %v", kinds(es))
	}
	for _, failure := range []Event{SpawnFailed{Slot: 2, Reason: "exit status 1"}, Died{ID: id(7001), Reason: "signal: killed"}} {
		b := leader(t)
		b.do(Spawned{Member: member(7001, 2, roster.Starting)})
		b.all(failure)
		b.pass(interval)
		if !b.c.View(b.now).Degraded {
			t.Errorf("not degraded after %T", failure)
		}
	}
	b := staffed(t, 7001)
	if es := b.all(Died{ID: id(7001), Reason: "signal: killed"}); !slices.Contains(kinds(es), Degraded) {
		t.Errorf("reports %v after the only follower died", kinds(es))
	}
}
