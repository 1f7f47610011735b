package placement

import (
	"reflect"
	"testing"
	"time"
)

// The times of an ownership follow each other, and the last one is before the end of the lease, also if
// the clock of the host is as slow as it may be and that of the store as fast.
func TestTimes(t *testing.T) {
	for _, stop := range []time.Duration{0, 100 * time.Millisecond, 10 * time.Second, time.Hour, 24 * time.Hour} {
		for _, hang := range []time.Duration{50 * time.Millisecond, time.Second, 10 * time.Minute} {
			l := NewLimits(hang)
			s := State{Sent: time.Hour, TTL: l.TTL(stop), Stop: stop, Reserve: l.Reserve}
			if s.Late()-s.Sent < l.Grace || s.Kill()-s.Late() != stop || s.Deadline()-s.Kill() != l.Reserve {
				t.Errorf("stop %v, hang %v: late %v, kill %v, deadline %v", stop, hang, s.Late(), s.Kill(), s.Deadline())
			}
			const drift = 1.0 / Drift
			if held, life := float64(s.Deadline()-s.Sent)/(1-drift), float64(s.TTL)/(1+drift); held > life*1.0001 {
				t.Errorf("stop %v: the host stops at %v, and the lease ends at %v", stop, held, life)
			}
			if s.TTL%time.Second != 0 {
				t.Errorf("the store cannot count %v", s.TTL)
			}
		}
	}
}

// step feeds events at their times and returns the last effects.
func step(c *Core, now time.Duration, events ...Event) (out []Effect) {
	for _, ev := range events {
		out = c.Step(now, ev)
	}
	return out
}

// owner returns a Core that owns its service since the time 0.
func owner(t *testing.T) *Core {
	t.Helper()
	c, _ := New(NewLimits(time.Second), 0, State{}, true)
	look := Look{Wanted: true, Gone: true, Stop: time.Second}
	if got, want := step(c, 0, look), []Effect{Claim{TTL: 9 * time.Second}}; !reflect.DeepEqual(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	got := step(c, 0, Claimed{TTL: 9 * time.Second, Lease: 7, Fence: 70})
	want := []Effect{Save{State: State{Phase: Held, Lease: 7, Fence: 70, TTL: 9 * time.Second, Stop: time.Second, Reserve: 2 * time.Second}}, Allow{Fence: 70}}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	step(c, 0, Look{Wanted: true, Stop: time.Second})
	return c
}

func has(effects []Effect, want Effect) bool {
	for _, e := range effects {
		if reflect.DeepEqual(e, want) {
			return true
		}
	}
	return false
}

// An answer that comes when the program is being stopped changes nothing.
func TestLateRenewal(t *testing.T) {
	c := owner(t)
	if got := step(c, time.Second, Tick{}); !has(got, Renew{Lease: 7, Fence: 70}) {
		t.Fatalf("got %v", got)
	}
	late := c.Late()
	step(c, late, Tick{})
	if c.Phase != Leaving {
		t.Fatalf("got %s", c.Phase)
	}
	step(c, late, Renewed{Sent: time.Second, Lease: 7})
	if c.Late() != late {
		t.Errorf("the renewal counts")
	}
	if got := step(c, c.Kill(), Tick{}); !has(got, Kill{}) {
		t.Errorf("got %v", got)
	}
	if at, ok := c.Wake(); !ok || at != c.Kill()+killAgain {
		t.Errorf("got %v, %v", at, ok)
	}
}

// The ownership is given back when the program is gone, and not before.
func TestRelease(t *testing.T) {
	c := owner(t)
	if got := step(c, time.Millisecond, Look{Stop: time.Second}); !has(got, Stop{Why: "this host shall not run it"}) || c.Phase != Leaving {
		t.Fatalf("got %v", got)
	}
	step(c, time.Millisecond, Renewed{Lease: 7})
	if got := step(c, 2*time.Second, Tick{}); !has(got, Renew{Lease: 7, Fence: 70}) {
		t.Errorf("a program that is still ending: got %v", got)
	}
	step(c, 2*time.Second, Renewed{Sent: 2 * time.Second, Lease: 7})
	if got := step(c, 3*time.Second, Look{Gone: true}); !has(got, Release{Lease: 7}) {
		t.Errorf("got %v", got)
	}
	if got := step(c, 3*time.Second, Failed{}); len(got) != 0 {
		t.Errorf("got %v", got)
	}
	if got := step(c, 4*time.Second, Tick{}); !has(got, Release{Lease: 7}) {
		t.Errorf("got %v", got)
	}
	if step(c, 4*time.Second, Released{Lease: 7}); c.State != (State{Phase: Away}) {
		t.Errorf("got %+v", c.State)
	}
}

// A state of another clock says nothing about the deadline, so the program is killed.
func TestStateOfAnotherClock(t *testing.T) {
	saved := owner(t).State
	saved.Sent = time.Hour
	c, _ := New(NewLimits(time.Second), time.Minute, saved, true)
	if got := step(c, time.Minute, Look{Wanted: true}); !has(got, Kill{}) {
		t.Errorf("got %v", got)
	}
}

// Without a saved state, a later leader would not know of the ownership.
func TestUnsaved(t *testing.T) {
	c := owner(t)
	step(c, time.Millisecond, Unsaved{})
	if c.Allowed() {
		t.Error("it is allowed")
	}
}
