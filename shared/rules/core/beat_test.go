package core

import (
	"slices"
	"testing"
	"time"
)

// beats reports whether an event makes this member send a heartbeat.
func (b *bench) beats(ev Event) bool {
	b.t.Helper()
	return slices.ContainsFunc(b.all(ev), func(e Effect) bool { _, ok := e.(Beat); return ok })
}

// TestHeartbeatsAreAnswered: a follower whose leader sends heartbeats wakes by itself at most
// once for two heartbeats, because its timer was set earlier. It sends nothing then.
func TestHeartbeatsAreAnswered(t *testing.T) {
	r := ros(3, 1, 7001)
	b := follower(t, 7001, r)
	begin := b.now
	timer, fired := b.c.Wake(), 0
	for i := range time.Duration(20) {
		b.now = begin + (i+1)*interval
		for timer < b.now {
			fired++
			if at := b.now; b.c.Wake() <= timer {
				b.now = timer
				if b.beats(Tick{}) {
					t.Errorf("the follower did not wait for heartbeat %d", i)
				}
				b.now = at
			}
			timer = b.c.Wake()
		}
		if !b.beats(Heard{Roster: r, Commit: 5}) {
			t.Errorf("heartbeat %d was not answered", i)
		}
		if b.beats(Heard{Roster: r, Commit: 5}) {
			t.Errorf("heartbeat %d was answered twice", i)
		}
	}
	if fired > 10 {
		t.Errorf("the follower woke by itself %d times for 20 heartbeats", fired)
	}
}

// TestFollowerBeatsByItself: a follower sends heartbeats to a silent leader too.
func TestFollowerBeatsByItself(t *testing.T) {
	b := follower(t, 7001, ros(3, 1, 7001))
	heard := b.now
	for b.now = b.c.Wake(); !b.beats(Tick{}); b.now = b.c.Wake() {
	}
	if silent := b.now - heard; silent >= 3*interval {
		t.Errorf("the follower was silent for %s, and a leader may take %s for its death", silent, 3*interval)
	}
	for range 3 {
		last := b.now
		b.now = b.c.Wake()
		if !b.beats(Tick{}) || b.now > last+interval {
			t.Errorf("no next heartbeat, or only after %s", b.now-last)
		}
	}
}

// TestWokenAsAskedIsNotLate: a follower that slept as long as Wake allowed does not count its own
// sleep against the silence of the leader.
func TestWokenAsAskedIsNotLate(t *testing.T) {
	b := follower(t, 7001, ros(3, 1, 7001))
	heard := b.now
	for !b.c.follow.fenced {
		b.now = b.c.Wake() + 5*time.Millisecond // timers fire late
		b.do(Tick{})
		if b.now > heard+timeout+10*time.Millisecond {
			t.Fatalf("the leader was silent for %s and was not killed", b.now-heard)
		}
	}
}

// TestLeaderBeatsAtMultiples: other periodic work at the same moments needs no wake-up of its
// own.
func TestLeaderBeatsAtMultiples(t *testing.T) {
	b := leader(t)
	b.now += 30 * time.Millisecond
	for n, tries := 0, 0; n < 5; tries++ {
		at := b.c.Wake()
		b.now = at
		if b.beats(Tick{}) {
			if n++; n > 1 && at%interval != 0 {
				t.Errorf("heartbeat at %s, want a multiple of the interval", at)
			}
		}
		b.now += 3 * time.Millisecond // this heartbeat is late, the next one is not
		if tries > 100 {
			t.Fatal("no heartbeat")
		}
	}
}
