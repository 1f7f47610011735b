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
	b.expect(b.do(Progress{ID: id(7001), Index: 2})) // one copy is no longer enough
	// Both are in sync, and only one has the entry: one is enough again.
	b.expect(b.do(Configured{MinSync: 1, StartTimeout: time.Minute}), "Commit 2", "Replicate")
	// A start may now take as long as the new timeout allows.
	b.do(Died{ID: id(7002), Reason: "SIGKILL"})
	var late []Effect
	for began := b.now; b.now < began+30*time.Second; {
		b.known(7001)
		late = append(late, b.pass(interval)...)
	}
	for _, e := range late {
		if _, ok := e.(AbortSpawn); ok {
			t.Fatalf("the start was aborted too early: %v", Describe(e))
		}
	}
}

// A follower keeps the new configuration when it becomes leader.
func TestConfiguredBeforeItLeads(t *testing.T) {
	f := follower(t, 7001, ros(3, 1, 7001))
	f.expect(f.do(Configured{MinSync: 0, StartTimeout: time.Minute}))
	f.takesOver()
	if f.c.View(f.now).Degraded || f.c.cfg.MinSync != 0 {
		t.Errorf("min_sync is %d", f.c.cfg.MinSync)
	}
}
