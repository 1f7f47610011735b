package operate

import (
	"os"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/host/proc"
)

func TestCPUUsage(t *testing.T) {
	var c cpuUsage
	now := time.Now()
	born := now.Add(-100 * time.Second)
	usage := func(used time.Duration) proc.Usage { return proc.Usage{CPU: used, StartedAt: born} }
	near := func(what string, got, want float64) {
		t.Helper()
		if got < want*.98 || got > want*1.02 {
			t.Errorf("%s: %g %%, want %g", what, got, want)
		}
	}
	near("never noted", c.percent(7, usage(50*time.Second)), 50)
	c.last = map[int]cpuNote{7: {at: now.Add(-4 * time.Second), startedAt: born, used: 49 * time.Second}}
	near("noted once", c.percent(7, usage(50*time.Second)), 25)
	c.before = map[int]cpuNote{7: {at: now.Add(-8 * time.Second), startedAt: born, used: 48 * time.Second}}
	near("noted twice", c.percent(7, usage(50*time.Second)), 25)
	near("idle", c.percent(7, usage(48*time.Second))+1, 1)
	// Another process with the same pid.
	near("younger", c.percent(7, proc.Usage{CPU: time.Second, StartedAt: now.Add(-10 * time.Second)}), 10)
}

// Usage is read every few seconds, however often note is called, and only for processes that
// exist.
func TestCPUNotes(t *testing.T) {
	var c cpuUsage
	now := time.Now()
	c.note(now, []int{os.Getpid(), 1 << 30})
	if len(c.last) != 1 || c.last[os.Getpid()].at.IsZero() {
		t.Fatalf("noted %v", c.last)
	}
	first := c.last[os.Getpid()]
	c.note(now.Add(cpuInterval-1), []int{os.Getpid()})
	if c.last[os.Getpid()] != first || c.before != nil {
		t.Error("usage was read too early")
	}
	c.note(now.Add(cpuInterval), []int{os.Getpid()})
	if c.before[os.Getpid()] != first || c.last[os.Getpid()] == first {
		t.Error("usage was not read in time")
	}
}
