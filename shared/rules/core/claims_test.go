package core

import (
	"slices"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/rules/roster"
)

// passAlive advances time while the followers on ports 7001 and 7002 send heartbeats.
func (b *bench) passAlive(d time.Duration) (got []Effect) {
	for end := b.now + d; b.now < end; {
		b.do(Progress{ID: id(7001), Index: 1})
		b.do(Progress{ID: id(7002), Index: 1})
		got = append(got, b.pass(interval)...)
	}
	return got
}

// heir returns a follower of a dead leader whose claims the test answers.
func heir(t *testing.T) *bench {
	b := follower(t, 7001, ros(3, 1, 7001))
	b.do(dead())
	b.claims = true
	return b
}

func TestEpochIsClaimedBeforeItsFirstEntry(t *testing.T) {
	b := heir(t)
	b.expect(b.do(LockTaken{Succession: named(3, 1, 7000), Claims: &Claims{Epoch: 3}}), "Unfollow", "Claim 4", "Adopt 1")
	b.expect(b.do(Adopted{Last: pos(3, 12), Slot: 2}))
	b.expect(b.do(Claimed{}), "BeginEpoch 4")
	b.expect(b.do(Claimed{})) // a second one has no effect

	b = heir(t)
	b.do(LockTaken{Succession: named(3, 1, 7000), Claims: &Claims{Epoch: 3}})
	b.expect(b.do(Claimed{}))
	b.expect(b.do(Adopted{Last: pos(3, 12), Slot: 2}), "BeginEpoch 4")
}

// Another heir claimed epochs 4 and 5 and died. Its log may be unreadable.
func TestClaimedEpochIsNeverUsedAgain(t *testing.T) {
	b := heir(t)
	es := b.do(LockTaken{Succession: named(3, 1, 7000), Claims: &Claims{Epoch: 5, Abandoned: []uint64{4}}})
	c := find[Claim](t, es).Claims
	if c.Epoch != 6 || !slices.Equal(c.Abandoned, []uint64{4, 5}) {
		t.Fatalf("claims %+v", c)
	}
	for epoch, want := range map[uint64]bool{3: true, 4: false, 5: false, 6: false} {
		if got := c.Completed(epoch, 3); got != want {
			t.Errorf("epoch %d completed: %t", epoch, got)
		}
	}
	if !c.Completed(6, 6) || c.Completed(5, 6) || !c.Completed(9, 0) {
		t.Errorf("after epoch 6 was named: %+v", c)
	}
}

func TestAbandonedEpochsAreBounded(t *testing.T) {
	c, s := Claims{}, named(1, 1, 7000)
	for e := uint64(2); e < 2*maxAbandoned; e++ {
		c = c.next(e, s)
	}
	if n := len(c.Abandoned); n != maxAbandoned || c.Abandoned[n-1] != 2*maxAbandoned-2 {
		t.Fatalf("%d abandoned epochs, the last %d", n, c.Abandoned[n-1])
	}
}

// Without claims.json, an unreadable log may hold any epoch. So the next epoch comes from the
// wall clock.
func TestMissingClaimsLeapByTheWallClock(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	for _, s := range []*Succession{named(3, 1, 7000), nil} {
		b := heir(t)
		b.do(LockTaken{Succession: s, Unreadable: s == nil, At: at})
		b.expect(b.do(Adopted{Last: pos(3, 12), Slot: 2, Seen: 4}), "Claim 1800000000")
		b.expect(b.do(Claimed{}), "BeginEpoch 1800000000")
	}
	b := heir(t) // the epoch never goes back, even if the clock is wrong
	b.do(LockTaken{Unreadable: true, At: time.Unix(-5, 0)})
	b.expect(b.do(Adopted{Last: pos(3, 12), Slot: 2, Seen: 7}), "Claim 8")
}

// claims.json came from a backup: the logs hold greater epochs than it names.
func TestClaimIsGreaterThanAnyEpochInALog(t *testing.T) {
	b := heir(t)
	b.do(LockTaken{Succession: named(3, 1, 7000), Claims: &Claims{Epoch: 3}})
	b.do(Claimed{})
	b.expect(b.do(Adopted{Last: pos(3, 12), Slot: 2, Seen: 9}), "Claim 10")
	b.expect(b.do(Claimed{}), "BeginEpoch 10")
}

func TestClaimIsTriedAgain(t *testing.T) {
	b := heir(t)
	b.do(LockTaken{Succession: named(3, 1, 7000), Claims: &Claims{Epoch: 3}})
	b.do(Adopted{Last: pos(3, 12), Slot: 2})
	if ks := kinds(b.all(ClaimFailed{Reason: "no space"})); len(ks) != 1 || ks[0] != SuccessionBlocked {
		t.Fatalf("reports %v", ks)
	}
	b.notBusy()
	b.now = b.c.Wake()
	b.expect(b.do(Tick{}), "Claim 4")
	b.expect(b.do(Claimed{}), "BeginEpoch 4")
}

// An heir can die just after it started a follower that its successor does not know.
func TestUnknownOwnerOfASlotIsKilled(t *testing.T) {
	b := staffed(t, 7001, 7002)
	b.expect(b.do(SlotOwned{ID: id(7001)}))
	b.expect(b.do(SlotOwned{ID: id(7000)}))
	b.expect(b.do(SlotOwned{ID: id(7009)}), "Watch 127.0.0.1:7009 (pid 7009)")
	b.expect(b.do(SlotOwned{ID: id(7009)}))
	b.notBusy()
	es := b.passAlive(b.c.cfg.Keeper.StartTimeout)
	b.expect(es, "Kill 127.0.0.1:7009 (pid 7009)")
	b.expect(b.do(Died{ID: id(7009)}))
	b.expect(b.do(SlotOwned{ID: id(7009)}), "Watch")
}

func TestStrangerThatJoinsIsAMember(t *testing.T) {
	b := leader(t)
	b.do(SlotOwned{ID: id(7009)})
	b.expect(b.do(Joined{Member: member(7009, 2, roster.Starting), Last: pos(1, 1), CanResume: true}), "Publish", "SendFrom", "Publish")
	if got := b.state(7009); got != "in_sync" {
		t.Fatal(got)
	}
}

func TestDismissedProcessIsWatched(t *testing.T) {
	b := staffed(t, 7001, 7002)
	m := member(7009, 4, roster.Starting)
	b.expect(b.do(Joined{Member: m, Last: pos(1, 1), CanResume: true}), "Watch", "Dismiss 127.0.0.1:7009 (pid 7009) not needed")
	b.expect(b.do(Spawned{Member: m})) // reported late
	b.expect(b.passAlive(b.c.cfg.StopTimeout), "Kill 127.0.0.1:7009 (pid 7009)")
}

func TestTwoMembersNeverShareASlot(t *testing.T) {
	b := staffed(t, 7001, 7002)
	b.expect(b.do(Spawned{Member: member(7009, 2, roster.Starting)}), "Watch", "Dismiss 127.0.0.1:7009 (pid 7009) not needed")
	if got := b.state(7009); got != "unknown" {
		t.Fatal(got)
	}
}

// A first start that was killed left only a damaged claims.json.
func TestDamagedClaimsOfAFreshCluster(t *testing.T) {
	b := newBench(t, 7000, 0)
	b.claims = true
	b.do(Boot{Lead: true})
	b.expect(b.do(LockTaken{ClaimsUnreadable: true, At: time.Unix(1_800_000_000, 0)}), "Unfollow", "TakeSlot 1")
	b.expect(b.do(Adopted{Slot: 1}), "Claim 1800000000")
}

// A cold start that finds no usable copy changes nothing.
func TestColdStartClaimsWhenItHasACopy(t *testing.T) {
	b := newBench(t, 7000, 0)
	b.claims = true
	b.do(Boot{Lead: true})
	b.expect(b.do(LockTaken{Succession: named(3, 1, 7000), Claims: &Claims{Epoch: 4}}), "Unfollow", "TakeSlot 1")
	b.expect(b.do(Adopted{Last: pos(3, 12), Slot: 1, Seen: 3}), "Claim 5")
	b.expect(b.do(Claimed{}), "BeginEpoch 5")
}
