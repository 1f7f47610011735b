package worker

import (
	"testing"
	"time"
)

func TestIdleDetectorFiresOncePerBurst(t *testing.T) {
	var r idleDetector
	at := time.Unix(1000, 0)
	after := func(d time.Duration, index uint64) bool { return r.due(at.Add(d), index) }
	if after(0, 5) || after(idleAfter-1, 5) {
		t.Error("due at once")
	}
	if !after(idleAfter, 5) {
		t.Error("not due after the burst")
	}
	if after(2*idleAfter, 5) {
		t.Error("due twice")
	}
	if after(3*idleAfter, 6) || after(3*idleAfter+1, 7) || after(4*idleAfter, 7) {
		t.Error("due in the middle of the next burst")
	}
	if !after(4*idleAfter+1, 7) {
		t.Error("not due after the next burst")
	}
}
