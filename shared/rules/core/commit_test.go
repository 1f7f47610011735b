package core

import (
	"testing"
	"testing/quick"

	"github.com/dynast-io/dynast/shared/rules/roster"
)

// naiveCommit tries every index. It returns the greatest one that is on the leader's disk and in
// enough logs.
func naiveCommit(synced uint8, acks []uint8, minSync int) uint64 {
	var best uint64
	for index := 0; index <= int(synced); index++ {
		copies := 0
		for _, a := range acks {
			if int(a) >= index {
				copies++
			}
		}
		if copies >= minSync || copies == len(acks) {
			best = uint64(index)
		}
	}
	return best
}

func TestCommitIndexAgainstNaive(t *testing.T) {
	same := func(synced uint8, few []uint8, minSync uint8) bool {
		acks := make([]uint64, len(few))
		for i, a := range few {
			acks[i] = uint64(a)
		}
		return commitIndex(uint64(synced), acks, int(minSync%5)) == naiveCommit(synced, few, int(minSync%5))
	}
	if err := quick.Check(same, &quick.Config{MaxCount: 5000}); err != nil {
		t.Error(err)
	}
}

func TestCommitWaitsForDiskAndFollower(t *testing.T) {
	b := staffed(t, 7001, 7002)
	b.expect(b.do(Appended{Last: pos(1, 5)}), "Replicate", "Sync")
	b.expect(b.do(Progress{ID: id(7001), Index: 5})) // not on disk yet
	b.expect(b.do(Appended{Last: pos(1, 6)}), "Replicate")
	b.expect(b.do(Synced{Last: pos(1, 5)}), "Sync", "Commit 5", "Replicate")
	b.expect(b.do(Synced{Last: pos(1, 6)})) // but no follower has it
	b.expect(b.do(Progress{ID: id(7002), Index: 6}), "Commit 6", "Replicate")
	b.expect(b.do(Progress{ID: id(9999), Index: 99})) // an unknown process
}

func TestFrozenFollowerDoesNotStall(t *testing.T) {
	b := staffed(t, 7001, 7002)
	b.do(Appended{Last: pos(1, 2)})
	b.do(Synced{Last: pos(1, 2)})
	b.expect(b.do(Progress{ID: id(7001), Index: 2}), "Commit 2", "Replicate")
}

func TestWithoutFollowersTheDiskDecides(t *testing.T) {
	b := leader(t)
	b.do(Appended{Last: pos(1, 2)})
	es := b.all(Synced{Last: pos(1, 2)})
	if find[Commit](t, es).Index != 2 || len(kinds(es)) != 0 {
		t.Fatalf("effects %v", es)
	}
	b.pass(b.c.cfg.Keeper.StartTimeout)
	if !b.c.View(b.now).Degraded {
		t.Fatal("no follower came up, and the cluster is not degraded")
	}
	b.do(Spawned{Member: member(7001, 2, roster.Starting)})
	es = b.all(Joined{Member: member(7001, 2, roster.Starting), Last: pos(1, 2), CanResume: true})
	if ks := kinds(es); ks[len(ks)-1] != Restored {
		t.Fatalf("reports %v", ks)
	}
}

func TestDeathOfTheLastFollowerUnblocksCommit(t *testing.T) {
	b := staffed(t, 7001)
	b.do(Appended{Last: pos(1, 2)})
	b.expect(b.do(Synced{Last: pos(1, 2)}))
	es := b.do(Died{ID: id(7001), Reason: "killed"})
	if find[Commit](t, es).Index != 2 {
		t.Fatalf("effects %v", es)
	}
}

// A follower's acknowledgement can arrive before the leader's own Appended.
func TestAnswerOvertakesAppended(t *testing.T) {
	b := staffed(t, 7001)
	b.expect(b.do(Progress{ID: id(7001), Index: 2}))
	b.expect(b.do(Appended{Last: pos(1, 2)}), "Replicate", "Sync")
	b.expect(b.do(Synced{Last: pos(1, 2)}), "Commit 2", "Replicate")
}

// A log that does not end with an entry of the leader's epoch may differ from the leader's log.
func TestFollowerAppliesOnlyEntriesOfItsLeader(t *testing.T) {
	b := follower(t, 7001, ros(3, 1, 7001))
	next := ros(4, 1, 7002)
	next.Leader = id(7002).Address
	b.expect(b.do(Introduced{Roster: next}), "Unwatch", "Watch", "Follow 127.0.0.1:7002")
	b.expect(b.do(Heard{Roster: next, Commit: 9}))
	b.expect(b.do(Received{Epoch: 4, Prev: pos(3, 8), Last: pos(4, 9), Commit: 9}), "Append")
	b.expect(b.do(Appended{Last: pos(4, 9)}), "Ack 4/9", "Commit 9")
	b.expect(b.do(Received{Epoch: 3, Prev: pos(3, 9), Last: pos(3, 12)})) // from the old leader
	b.expect(b.do(Received{Epoch: 4, Prev: pos(3, 8), Last: pos(4, 9)}))  // already received
}

func TestOneSyncAtATime(t *testing.T) {
	b := leader(t)
	b.expect(b.do(Appended{Last: pos(1, 2)}), "Replicate", "Sync")
	b.expect(b.do(Appended{Last: pos(1, 3)}), "Replicate")
	b.expect(b.do(Synced{Last: pos(1, 2)}), "Sync", "Commit 2", "Replicate")
	b.expect(b.do(Synced{Last: pos(1, 3)}), "Commit 3", "Replicate")
}

// After a loss, a shorter copy can replace a follower's copy. Entries that are appended to it are
// not committed just because the lost entries were.
func TestAShorterCopyLowersTheCommitIndex(t *testing.T) {
	b := follower(t, 7001, ros(3, 1, 7001))
	b.expect(b.do(Heard{Roster: ros(3, 1, 7001), Commit: 9}), "Commit 9")
	b.do(Introduced{Roster: ros(4, 1, 7001)})
	b.expect(b.do(Installed{Last: pos(4, 7)}), "Commit 7", "Ack 4/7")
	b.expect(b.do(Appended{Last: pos(4, 8)}), "Ack 4/8") // the commit index 9 came from the previous leader
	b.expect(b.do(Heard{Roster: ros(4, 1, 7001), Commit: 8}), "Commit 8")
}
