package worker

import (
	"testing"
	"time"
)

func TestABurstEndsOnce(t *testing.T) {
	var r resting
	at := time.Unix(1000, 0)
	after := func(d time.Duration, index uint64) bool { return r.due(at.Add(d), index) }
	if after(0, 5) || after(restAfter-1, 5) {
		t.Error("due at once")
	}
	if !after(restAfter, 5) {
		t.Error("not due after the burst")
	}
	if after(2*restAfter, 5) {
		t.Error("due twice")
	}
	if after(3*restAfter, 6) || after(3*restAfter+1, 7) || after(4*restAfter, 7) {
		t.Error("due in the middle of the next burst")
	}
	if !after(4*restAfter+1, 7) {
		t.Error("not due after the next burst")
	}
}
