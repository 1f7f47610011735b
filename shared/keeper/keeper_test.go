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
		t.Fatal("a seat to be filled is busy and pending, another is not")
	}
	if due := k.Due(0); !slices.Equal(due, []int{2}) {
		t.Fatalf("due: %v", due)
	}
	if due := k.Due(time.Hour); len(due) != 0 {
		t.Fatalf("due again: %v", due)
	}
	k.Up(2)
	if k.IsPending(2) || !k.Busy(2) || len(k.Overdue(time.Hour)) != 0 {
		t.Fatal("a process that is up is neither pending nor overdue")
	}
	if d := k.Fill(time.Minute, 2); d != 0 || len(k.Due(time.Hour)) != 0 {
		t.Fatal("a seat that is taken was filled again")
	}
	k.Down(time.Minute, 2)
	if k.Busy(2) {
		t.Fatal("a seat whose process is gone is busy")
	}
	if _, ok := k.Wake(); ok {
		t.Fatal("an empty seat wants to be woken for")
	}
}

func TestOverdueUntilDown(t *testing.T) {
	k := newKeeper()
	k.Fill(0, 1)
	k.Take(0, 7) // started by somebody else
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
	// Told once, and again only after another timeout: no busy loop.
	if late := k.Overdue(11 * time.Second); len(late) != 0 {
		t.Fatalf("overdue again at once: %v", late)
	}
	if late := k.Overdue(20 * time.Second); !slices.Equal(late, []int{1, 7}) {
		t.Fatalf("not told again: %v", late)
	}
	k.Down(20*time.Second, 1)
	k.Cancel(7)
	if p := k.Pending(); len(p) != 0 {
		t.Fatalf("pending: %v", p)
	}
}

// fail starts and loses a process at once and returns the delay of the start.
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
			t.Errorf("failure %d is free and costs %s", i, delays[i])
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
		t.Errorf("another seat pays %s for it", d)
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
		t.Error("two keepers with other random sources have the same delays")
	}
}

func TestFailuresAreForgiven(t *testing.T) {
	k := newKeeper()
	now := time.Duration(0)
	for range 8 {
		now += fail(k, now, 1)
	}
	if d := k.Fill(now, 1); d == 0 {
		t.Fatal("eight failures cost nothing")
	}
	k.Cancel(1)
	// 8 halve to less than the free 3 within two half-lives.
	if d := k.Fill(now+20*time.Second, 1); d != 0 {
		t.Errorf("after two half-lives the start still waits for %s", d)
	}
}

func TestCancelCostsNothing(t *testing.T) {
	k := newKeeper()
	for range 20 {
		k.Fill(0, 1)
		k.Due(0)
		k.Cancel(1)
	}
	if d := k.Fill(0, 1); d != 0 {
		t.Errorf("cancelled starts cost %s", d)
	}
	k.Cancel(99) // never heard of
}

// A process that works is not overdue, one that works for too long is.
func TestToilingUntilItTakesTooLong(t *testing.T) {
	k := newKeeper() // 10 s, and 60 times that
	k.Toils(0, 1)
	if k.Busy(1) {
		t.Fatal("a seat that nobody asked for is busy")
	}
	k.Fill(0, 1)
	k.Toils(0, 1)
	if due := k.Due(0); len(due) != 1 {
		t.Fatalf("due: %v", due)
	}
	now := time.Duration(0)
	for ; now <= 594*time.Second; now += 9 * time.Second {
		if late := k.Overdue(now); len(late) != 0 {
			t.Fatalf("overdue at %s: %v", now, late)
		}
		k.Toils(now, 1)
	}
	if wake, ok := k.Wake(); !ok || wake != 600*time.Second {
		t.Fatalf("wake at %s, %t", wake, ok)
	}
	k.Toils(599*time.Second, 1)
	if late := k.Overdue(600 * time.Second); len(late) != 1 {
		t.Fatal("it may take for ever")
	}
	k.Up(1)
	k.Toils(601*time.Second, 1)
	if k.IsPending(1) {
		t.Fatal("a process that is up starts again")
	}
}
