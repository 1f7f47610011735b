package cgroup

import (
	"testing"
	"time"
)

// The processor time of a group includes that of processes which have ended.
func TestCPU(t *testing.T) {
	g := group(t)
	if err := start(t, g, "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done").Wait(); err != nil {
		t.Fatal(err)
	}
	if cpu, err := g.CPU(); err != nil || cpu < 50*time.Millisecond {
		t.Errorf("%v, %v; the shell needed more", cpu, err)
	}
	if _, err := At(t.TempDir()).CPU(); err == nil {
		t.Error("a directory that is no group has a processor time")
	}
}
