package core

import (
	"testing"
	"time"
)

func TestConfiguredWhileItLeads(t *testing.T) {
	b := staffed(t, 7001, 7002)
	b.do(Configured{MinSync: 2, StartTimeout: time.Minute})
	b.do(Appended{Last: pos(1, 2)})
	b.do(Synced{Last: pos(1, 2)})
	b.expect(b.do(Progress{ID: id(7001), Index: 2})) // one is not enough any more
	// Both of them are in sync, and only one has it: one is enough again.
	b.expect(b.do(Configured{MinSync: 1, StartTimeout: time.Minute}), "Commit 2", "Replicate")
	// A start may take as long as it is allowed now.
	b.do(Died{ID: id(7002), Reason: "SIGKILL"})
	var late []Effect
	for began := b.now; b.now < began+30*time.Second; {
		b.known(7001)
		late = append(late, b.pass(interval)...)
	}
	for _, e := range late {
		if _, ok := e.(AbortSpawn); ok {
			t.Fatalf("given up before its time: %v", Describe(e))
		}
	}
}

// A follower leads by what it was told.
func TestConfiguredBeforeItLeads(t *testing.T) {
	f := follower(t, 7001, ros(3, 1, 7001))
	f.expect(f.do(Configured{MinSync: 0, StartTimeout: time.Minute}))
	f.do(dead())
	f.do(LockTaken{Succession: named(3, 1, 7000), AnyData: true})
	f.do(Adopted{Last: pos(3, 12), Slot: 2})
	f.do(Appended{Last: pos(4, 13)})
	f.do(Synced{Last: pos(4, 13)})
	f.do(SuccessionWritten{})
	if f.c.View(f.now).Degraded || f.c.cfg.MinSync != 0 {
		t.Errorf("min_sync is %d", f.c.cfg.MinSync)
	}
}
