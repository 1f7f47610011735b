package keeper

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func newKeeper() *Keeper {
	return New(Config{
		StartTimeout: 10 * time.Second, Base: 50 * time.Millisecond, Max: 15 * time.Second,
		HalfLife: 10 * time.Second, Free: 3,
	}, rand.New(rand.NewPCG(1, 1)))
}

func TestLifeOfASeat(t *testing.T) {
	k := newKeeper()
	if d := k.Fill(0, 2); d != 0 {
		t.Fatalf("the first start waits for %s", d)
	}
	if !k.Busy(2) || !k.IsPending(2) || k.Busy(1) || k.IsPending(1) {
		t.Fatal("want the scheduled seat busy and pending, and another one neither")
	}
	if due := k.Due(0); !slices.Equal(due, []int{2}) {
		t.Fatalf("due: %v", due)
	}
	if due := k.Due(time.Hour); len(due) != 0 {
		t.Fatalf("due again: %v", due)
	}
	k.Up(2)
	if k.IsPending(2) || !k.Busy(2) || len(k.Overdue(time.Hour)) != 0 {
		t.Fatal("a process that is up counts as pending or overdue")
	}
	if d := k.Fill(time.Minute, 2); d != 0 || len(k.Due(time.Hour)) != 0 {
		t.Fatal("a taken seat was scheduled again")
	}
	k.Down(time.Minute, 2)
	if k.Busy(2) {
		t.Fatal("a seat whose process is gone is busy")
	}
	if _, ok := k.Wake(); ok {
		t.Fatal("an empty seat asks for a wake-up")
	}
}

func TestOverdueUntilDown(t *testing.T) {
	k := newKeeper()
	k.Fill(0, 1)
	k.Take(0, 7) // started by another leader
	k.Due(0)
	if wake, ok := k.Wake(); !ok || wake != 10*time.Second {
		t.Fatalf("wake at %s, %t", wake, ok)
	}
	if late := k.Overdue(10*time.Second - 1); len(late) != 0 {
		t.Fatalf("overdue too early: %v", late)
	}
	if late := k.Overdue(10 * time.Second); !slices.Equal(late, []int{1, 7}) {
		t.Fatalf("overdue: %v", late)
	}
	// It is reported once, and again only after another timeout, so that there is no busy loop.
	if late := k.Overdue(11 * time.Second); len(late) != 0 {
		t.Fatalf("overdue again at once: %v", late)
	}
	if late := k.Overdue(20 * time.Second); !slices.Equal(late, []int{1, 7}) {
		t.Fatalf("not reported again: %v", late)
	}
	k.Down(20*time.Second, 1)
	k.Cancel(7)
	if p := k.Pending(); len(p) != 0 {
		t.Fatalf("pending: %v", p)
	}
}

// fail starts a process, loses it at once, and returns the delay of the start.
func fail(k *Keeper, now time.Duration, n int) time.Duration {
	d := k.Fill(now, n)
	k.Due(now + d)
	k.Down(now+d, n)
	return d
}

func TestDelaysGrowAreJitteredAndBounded(t *testing.T) {
	k := newKeeper()
	now := time.Duration(0)
	var delays []time.Duration
	for range 25 {
		d := fail(k, now, 1)
		delays = append(delays, d)
		now += d
	}
	for i := range 3 {
		if delays[i] != 0 {
			t.Errorf("failure %d should cause no delay, but delays the start by %s", i, delays[i])
		}
	}
	if delays[6] <= delays[4] || delays[8] <= delays[6] {
		t.Errorf("delays do not grow: %v", delays)
	}
	for _, d := range delays {
		if d > 15*time.Second*5/4 {
			t.Errorf("delay %s is beyond the bound", d)
		}
	}
	last := delays[len(delays)-1]
	if last < time.Second {
		t.Errorf("after 25 failures in a row the delay is %s", last)
	}
	if d := k.Fill(now, 2); d != 0 {
		t.Errorf("the failures of one seat delay another one by %s", d)
	}
	other := New(k.cfg, rand.New(rand.NewPCG(2, 2)))
	same := true
	at := time.Duration(0)
	for _, d := range delays {
		x := fail(other, at, 1)
		same = same && x == d
		at += x
	}
	if same {
		t.Error("two keepers with different random sources have the same delays")
	}
}

func TestFailuresDecay(t *testing.T) {
	k := newKeeper()
	now := time.Duration(0)
	for range 8 {
		now += fail(k, now, 1)
	}
	if d := k.Fill(now, 1); d == 0 {
		t.Fatal("eight failures caused no delay")
	}
	k.Cancel(1)
	// Within two half-lives, a score of 8 falls below the free score of 3.
	if d := k.Fill(now+20*time.Second, 1); d != 0 {
		t.Errorf("after two half-lives the start still waits for %s", d)
	}
}

func TestCancelCausesNoDelay(t *testing.T) {
	k := newKeeper()
	for range 20 {
		k.Fill(0, 1)
		k.Due(0)
		k.Cancel(1)
	}
	if d := k.Fill(0, 1); d != 0 {
		t.Errorf("cancelled starts cause a delay of %s", d)
	}
	k.Cancel(99) // an unknown seat
}

// A process that works on its start is not overdue. One that works for too long is.
func TestWorkingProcessIsOverdueAfterLongestStart(t *testing.T) {
	k := newKeeper() // StartTimeout is 10 s, LongestStart 60 times that
	k.Working(0, 1)
	if k.Busy(1) {
		t.Fatal("a seat that was never scheduled is busy")
	}
	k.Fill(0, 1)
	k.Working(0, 1)
	if due := k.Due(0); len(due) != 1 {
		t.Fatalf("due: %v", due)
	}
	now := time.Duration(0)
	for ; now <= 594*time.Second; now += 9 * time.Second {
		if late := k.Overdue(now); len(late) != 0 {
			t.Fatalf("overdue at %s: %v", now, late)
		}
		k.Working(now, 1)
	}
	if wake, ok := k.Wake(); !ok || wake != 600*time.Second {
		t.Fatalf("wake at %s, %t", wake, ok)
	}
	k.Working(599*time.Second, 1)
	if late := k.Overdue(600 * time.Second); len(late) != 1 {
		t.Fatal("a working process is never overdue")
	}
	k.Up(1)
	k.Working(601*time.Second, 1)
	if k.IsPending(1) {
		t.Fatal("a process that is up counts as starting")
	}
}
