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

// TestHeartbeatsAreAnswered: a follower of a leader that beats wakes by itself
// once for two heartbeats at most, as its timer fires where it was set before, and
// sends nothing then.
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
					t.Errorf("heartbeat %d was not waited for", i)
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
		t.Errorf("woke %d times by itself for 20 heartbeats", fired)
	}
}

// TestFollowerBeatsByItself: a leader that says nothing hears of its followers
// all the same.
func TestFollowerBeatsByItself(t *testing.T) {
	b := follower(t, 7001, ros(3, 1, 7001))
	heard := b.now
	for b.now = b.c.Wake(); !b.beats(Tick{}); b.now = b.c.Wake() {
	}
	if silent := b.now - heard; silent >= 3*interval {
		t.Errorf("silent for %s, and a leader may take %s for the end", silent, 3*interval)
	}
	for range 3 {
		last := b.now
		b.now = b.c.Wake()
		if !b.beats(Tick{}) || b.now > last+interval {
			t.Errorf("the next heartbeat: none, or after %s", b.now-last)
		}
	}
}

// TestWokenAsAskedIsNotLate: a follower that sleeps for as long as it may does
// not put the leader's silence down to itself.
func TestWokenAsAskedIsNotLate(t *testing.T) {
	b := follower(t, 7001, ros(3, 1, 7001))
	heard := b.now
	for !b.c.follow.fenced {
		b.now = b.c.Wake() + 5*time.Millisecond // as timers are
		b.do(Tick{})
		if b.now > heard+timeout+10*time.Millisecond {
			t.Fatalf("silent for %s, and not ended", b.now-heard)
		}
	}
}

// TestLeaderBeatsAtMultiples: so that what else is due at these needs no wake of its own.
func TestLeaderBeatsAtMultiples(t *testing.T) {
	b := leader(t)
	b.now += 30 * time.Millisecond
	for n, tries := 0, 0; n < 5; tries++ {
		at := b.c.Wake()
		b.now = at
		if b.beats(Tick{}) {
			if n++; n > 1 && at%interval != 0 {
				t.Errorf("beats at %s", at)
			}
		}
		b.now += 3 * time.Millisecond // it is late, and the next heartbeat is not
		if tries > 100 {
			t.Fatal("does not beat")
		}
	}
}
