package core

import (
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/rules/roster"
)

func dead() Died { return Died{ID: id(7000), Reason: "killed"} }

func named(epoch uint64, slot int, port uint16) *Succession {
	return &Succession{Epoch: epoch, Slot: slot, Leader: id(port)}
}

func TestHeirInheritsAtOnce(t *testing.T) {
	b := follower(t, 7001, ros(3, 1, 7001, 7002))
	b.expect(b.do(dead()), "TryLock")
	b.expect(b.do(LockTaken{Succession: named(3, 1, 7000), AnyData: true}), "Unfollow", "Adopt 1")
	b.expect(b.do(Adopted{Last: pos(3, 12), Slot: 2}), "BeginEpoch 4")
	b.expect(b.do(Appended{Last: pos(3, 12)})) // a late report of an earlier append
	b.expect(b.do(Appended{Last: pos(4, 13)}), "Sync")
	b.expect(b.do(Synced{Last: pos(3, 12)}), "Sync") // not the whole log
	b.expect(b.do(Synced{Last: pos(4, 13)}), "WriteSuccession 4")
	es := b.do(SuccessionWritten{})
	b.expect(es, "Commit 13", "Lead 4", "Watch 127.0.0.1:7002", "Reattach 127.0.0.1:7002", "Publish", "PublishDeaths 1")
	b.expect(b.do(Tick{}), "Spawn 1")
	if r := b.c.Roster(); r.Leader != id(7001).Address || b.state(7002) != "in_sync" || b.state(7000) != "unknown" {
		t.Fatalf("roster %s", r)
	}
	if d := b.c.Deaths()[0]; d.ID != id(7000) || d.ReplacedBy != id(7001).Address {
		t.Fatalf("death %+v", d)
	}
}

// A start that hung took the slot of a dead follower, and inherits before it learned of that
// death.
func TestPreviousOwnerOfTheOwnSlotIsNotAdopted(t *testing.T) {
	b := newBench(t, 7003, 2)
	b.do(Boot{Roster: ros(3, 1, 7001, 7002), HasCopy: true, Last: pos(3, 10)})
	b.do(dead())
	b.do(LockTaken{Succession: named(3, 1, 7000), AnyData: true})
	b.do(Adopted{Last: pos(3, 12), Slot: 2})
	b.do(Appended{Last: pos(4, 13)})
	b.do(Synced{Last: pos(4, 13)})
	b.expect(b.do(SuccessionWritten{}), "Commit 13", "Lead 4", "Watch 127.0.0.1:7002", "Reattach 127.0.0.1:7002", "Publish", "PublishDeaths 1")
	if b.state(7001) != "unknown" || b.state(7002) != "in_sync" {
		t.Fatalf("roster %s", b.c.Roster())
	}
}

func TestTheNextInLineWaitsItsTurn(t *testing.T) {
	b := follower(t, 7002, ros(3, 1, 7001, 7002))
	b.expect(b.do(dead()), "Expect 127.0.0.1:7001")
	if want := b.now + b.c.cfg.TurnDelay; b.c.Wake() != want {
		t.Fatalf("wakes at %s, want %s", b.c.Wake(), want)
	}
	b.now = b.c.Wake()
	b.expect(b.do(Tick{}), "TryLock")
	b.notBusy() // it waits for the answer
}

func TestHeldLockIsRetriedUntilALeaderIsNamed(t *testing.T) {
	b := follower(t, 7001, ros(3, 1, 7001, 7002))
	b.do(dead())
	b.expect(b.do(LockHeld{Succession: named(3, 1, 7000)})) // still names the dead leader
	b.now = b.c.Wake()
	b.expect(b.do(Tick{}), "TryLock")
	b.expect(b.do(LockHeld{Succession: named(4, 3, 7002)}),
		"Unwatch 127.0.0.1:7000", "Watch 127.0.0.1:7002", "Follow 127.0.0.1:7002")
	if b.c.Role() != Following || b.c.Roster().Epoch != 4 || b.state(7000) != "unknown" {
		t.Fatalf("%s, %s", b.c.Role(), b.c.Roster())
	}
	b.expect(b.do(dead())) // already known
}

func TestUpRefusesASecondLeader(t *testing.T) {
	for _, s := range []*Succession{nil, named(3, 1, 7005)} {
		b := newBench(t, 7000, 0)
		b.do(Boot{Lead: true})
		if e := find[Exit](t, b.do(LockHeld{Succession: s})); e.Code != ExitLocked {
			t.Fatalf("exit %+v", e)
		}
	}
}

func TestSilentLeaderIsKilledFirst(t *testing.T) {
	b := follower(t, 7001, ros(3, 1, 7001))
	b.expect(b.pass(timeout - 50*time.Millisecond))
	es := b.pass(60 * time.Millisecond)
	b.expect(es, "Kill 127.0.0.1:7000")
	b.expect(b.pass(3 * timeout)) // only once, and no attempt at the lock before the leader is gone
	b.notBusy()
	b.expect(b.do(dead()), "TryLock")
}

func TestOwnLatenessIsNoSilence(t *testing.T) {
	b := follower(t, 7001, ros(3, 1, 7001))
	b.pass(timeout / 2)
	b.now += 10 * timeout // this member was stopped
	b.expect(b.do(Tick{}))
	b.expect(b.pass(timeout/2 - 2*interval))
	b.expect(b.pass(2*interval), "Kill 127.0.0.1:7000")
}

func TestLeaderNeverMetIsNotKilled(t *testing.T) {
	b := newBench(t, 7001, 2)
	b.do(Boot{Roster: ros(3, 1, 7001)})
	b.expect(b.pass(5 * timeout))
	if e := find[Exit](t, b.pass(6*timeout)); e.Code != ExitUnreachable {
		t.Fatalf("exit %+v", e)
	}
}

func TestLeaderStoppedBeforeItWasMetIsKilled(t *testing.T) {
	b := newBench(t, 7001, 2)
	b.do(Boot{Roster: ros(3, 1, 7001)})
	b.do(LeaderStopped{ID: id(7000), Stopped: true})
	b.pass(timeout / 2)
	b.do(LeaderStopped{ID: id(7000)}) // it continues
	b.expect(b.pass(timeout))
	b.do(LeaderStopped{ID: id(7009), Stopped: true}) // another process
	b.expect(b.pass(2 * timeout))
	b.do(LeaderStopped{ID: id(7000), Stopped: true})
	b.do(LeaderStopped{ID: id(7000), Stopped: true}) // reported again
	b.expect(b.pass(timeout - 2*interval))
	b.notBusy()
	b.expect(b.pass(3*interval), "Kill 127.0.0.1:7000")
	b.expect(b.pass(20 * timeout))
	b.expect(b.do(dead()), "TryLock")
}

func TestSilentLeaderNamedByTheLockIsKilled(t *testing.T) {
	b := follower(t, 7001, ros(3, 1, 7001, 7002))
	b.do(dead())
	b.do(LockHeld{Succession: named(4, 3, 7002)})
	b.expect(b.pass(timeout+interval), "Kill 127.0.0.1:7002")
}

func TestFollowerWithoutCopyTakesTheNamedSlot(t *testing.T) {
	b := newBench(t, 7001, 2)
	b.do(Boot{Roster: ros(3, 1, 7001)})
	b.do(dead())
	b.expect(b.do(LockTaken{Succession: named(3, 1, 7000), AnyData: true}), "Unfollow", "TakeSlot 1")
	b.expect(b.do(Adopted{Last: pos(3, 12), Slot: 1}), "BeginEpoch 4")
}

func TestAdoptFallsBack(t *testing.T) {
	b := follower(t, 7001, ros(3, 1, 7001))
	b.do(dead())
	b.do(LockTaken{Succession: named(3, 1, 7000), AnyData: true})
	b.expect(b.do(AdoptFailed{Diverged: true}), "TakeSlot 1")
	b.expect(b.do(AdoptFailed{Reason: "cannot be read"}), "AdoptBest cannot be read")
	es := b.all(Adopted{Last: pos(3, 9), Slot: 2, Lost: "10 to ?"})
	if ks := kinds(es); len(ks) != 1 || ks[0] != LossPossible {
		t.Fatalf("reports %v", ks)
	}
	find[BeginEpoch](t, es)
	b = follower(t, 7001, ros(3, 1, 7001))
	b.do(dead())
	b.expect(b.do(LockTaken{Unreadable: true}), "Unfollow", "AdoptBest")
	if e := find[Exit](t, b.do(AdoptFailed{Fatal: true})); e.Code != ExitCorrupt {
		t.Fatalf("exit %+v", e)
	}
}

func TestEpochIsGreaterThanAnyKnown(t *testing.T) {
	for _, c := range []struct{ roster, log, named, seen, want uint64 }{{3, 3, 3, 0, 4}, {5, 3, 3, 3, 6}, {3, 7, 3, 7, 8}, {3, 3, 8, 3, 9}, {3, 3, 3, 6, 7}} {
		b := follower(t, 7001, ros(c.roster, 1, 7001))
		b.do(dead())
		b.do(LockTaken{Succession: named(c.named, 1, 7000)})
		if e := find[BeginEpoch](t, b.do(Adopted{Last: pos(c.log, 12), Slot: 2, Seen: c.seen})); e.Epoch != c.want {
			t.Errorf("%+v: epoch %d", c, e.Epoch)
		}
	}
}

func TestFullDiskIsTriedAgain(t *testing.T) {
	b := newBench(t, 7000, 0)
	b.do(Boot{Lead: true})
	b.do(LockTaken{})
	b.do(Adopted{Slot: 1})
	b.do(Appended{Last: pos(1, 1)})
	b.do(Synced{Last: pos(1, 1)})
	if ks := kinds(b.all(SuccessionFailed{Reason: "no space"})); ks[0] != SuccessionBlocked {
		t.Fatalf("reports %v", ks)
	}
	b.expect(b.do(Tick{}))
	b.notBusy()
	b.now = b.c.Wake()
	b.expect(b.do(Tick{}), "WriteSuccession 1")
	find[Lead](t, b.do(SuccessionWritten{}))
}

// A new leader can have the address of the dead one.
func TestNewLeaderOnTheOldAddress(t *testing.T) {
	b := follower(t, 7001, ros(3, 1, 7001))
	r := ros(4, 1, 7001)
	r.Members[0].PID = 1234
	b.expect(b.do(Heard{Roster: r}), "Unwatch 127.0.0.1:7000 (pid 7000)", "Watch 127.0.0.1:7000 (pid 1234)", "Follow 127.0.0.1:7000 (pid 1234)")
}

func TestOldRosterIsIgnored(t *testing.T) {
	b := follower(t, 7001, ros(3, 5, 7001, 7002))
	b.do(Heard{Roster: ros(3, 4, 7001), Commit: 6})
	if b.state(7002) == "unknown" {
		t.Error("an older version replaced the roster")
	}
	b.expect(b.do(Heard{Roster: ros(2, 9, 7001), Commit: 99}))
	b.expect(b.do(Introduced{Roster: ros(3, 9, 7001)}))
}

func TestDismissedAndStopped(t *testing.T) {
	for _, ev := range []Event{Dismissed{Reason: "not needed"}, StopRequested{Reason: "SIGTERM"}} {
		b := follower(t, 7001, ros(3, 1, 7001))
		if e := find[Exit](t, b.do(ev)); e.Code != ExitDone {
			t.Errorf("exit %+v", e)
		}
		if es := b.do(dead()); es != nil {
			t.Errorf("effects after the exit: %v", es)
		}
	}
}

func TestTakeoverIgnoresOtherEvents(t *testing.T) {
	b := follower(t, 7001, ros(3, 1, 7001))
	b.do(dead())
	b.do(LockTaken{Succession: named(3, 1, 7000)})
	for _, ev := range []Event{
		Heard{Roster: ros(9, 1)}, Introduced{Roster: ros(9, 1)}, Dismissed{}, Installed{Last: pos(3, 2)},
		Received{Epoch: 3, Last: pos(3, 20)}, LockHeld{}, LockTaken{}, Joined{Member: member(7009, 9, roster.Starting)},
	} {
		b.expect(b.do(ev))
	}
}

func TestRolesChangeOnlyAsAllowed(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a follower became a leader without inheriting")
		}
	}()
	New(Config{}).become(Leading)
}

func TestHolderStoppedInATakeoverIsKilled(t *testing.T) {
	b := follower(t, 7002, ros(3, 1, 7001, 7002))
	b.do(dead())
	holder := roster.ID{PID: 4711, StartTime: 9}
	ask := func(ev LockHeld) (killed bool) {
		b.now = b.c.Wake()
		b.do(Tick{})
		for _, e := range b.do(ev) {
			if k, ok := e.(Kill); ok {
				killed = true
				if k.ID != holder {
					t.Fatalf("killed %s", k.ID)
				}
			}
		}
		return killed
	}
	stopped := LockHeld{Succession: named(3, 1, 7000), Holder: holder, HolderStopped: true}
	running := LockHeld{Succession: named(3, 1, 7000), Holder: holder}
	since := b.now
	for range 3 {
		for b.now < since+b.c.cfg.HeartbeatTimeout/2 {
			if ask(stopped) {
				t.Fatalf("killed after %s", b.now-since)
			}
		}
		ask(running) // it continues: the time counts from the start again
		since = b.now
	}
	for !ask(stopped) {
		if b.now > since+2*b.c.cfg.HeartbeatTimeout {
			t.Fatal("the stopped holder was never killed")
		}
	}
	if took := b.now - since; took < b.c.cfg.HeartbeatTimeout {
		t.Fatalf("killed after %s", took)
	}
}

func TestANewLeaderStartsTheMissingOnceItHasSettled(t *testing.T) {
	takeOver := func(r *roster.Roster) (*bench, []Effect) {
		b := follower(t, 7001, r)
		b.c.cfg.Settle = 20 * time.Millisecond
		b.do(dead())
		b.do(LockTaken{Succession: named(3, 1, 7000), AnyData: true})
		b.do(Adopted{Last: pos(3, 12), Slot: 2})
		b.do(Appended{Last: pos(4, 13)})
		b.do(Synced{Last: pos(4, 13)})
		return b, b.do(SuccessionWritten{})
	}
	spawns := func(es []Effect) (n int) {
		for _, e := range es {
			if _, ok := e.(Spawn); ok {
				n++
			}
		}
		return n
	}
	b, es := takeOver(ros(3, 1, 7001, 7002))
	if n := spawns(es); n != 0 {
		t.Fatalf("%d starts although a follower lives", n)
	}
	if wake := b.c.Wake(); wake > b.now+b.c.cfg.Settle {
		t.Fatalf("wakes at %s, but it is already %s", wake, b.now)
	}
	b.now = b.c.Wake()
	if n := spawns(b.do(Tick{})); n != 1 {
		t.Fatalf("%d starts after it settled", n)
	}
	// Without any follower there is nothing to wait for.
	if _, es := takeOver(ros(3, 1, 7001)); spawns(es) != 2 {
		t.Fatalf("%d starts by a leader without followers", spawns(es))
	}
}
