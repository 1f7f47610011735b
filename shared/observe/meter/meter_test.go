package meter

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"
	"time"
)

// Each duration is in the bucket whose bounds enclose it, compared with a naive search.
func TestBuckets(t *testing.T) {
	for i := 1; i < buckets; i++ {
		if bound(i) <= bound(i-1) {
			t.Fatalf("bounds %g, %g", bound(i-1), bound(i))
		}
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	check := func(d time.Duration) {
		t.Helper()
		us := math.Ceil(float64(d) / 1e3)
		want := -1
		for i := range buckets {
			if us <= math.Round(bound(i)*1e6) || i == buckets-1 {
				want = i
				break
			}
		}
		if got := bucket(d); got != want {
			t.Fatalf("%s is in bucket %d (up to %gs), want %d (up to %gs)", d, got, bound(got), want, bound(want))
		}
	}
	for i := range buckets - 1 {
		at := time.Duration(math.Round(bound(i)*1e6)) * time.Microsecond
		check(at - 1)
		check(at)
		check(at + 1)
	}
	for range 100000 {
		check(time.Duration(math.Exp(rng.Float64() * math.Log(60e9))))
	}
	check(0)
	check(time.Hour)
}

func TestQuantilesOfADifference(t *testing.T) {
	var r Requests
	for range 1000 {
		r.Done(Write, time.Second, false) // before
	}
	before := r.Snapshot()
	for i := range 100 {
		r.Done(Write, time.Duration(i+1)*time.Millisecond, i%10 == 0)
	}
	r.Done(Read, 20*time.Microsecond, false)
	d := r.Snapshot().Sub(before)
	if d.Write.Count != 100 || d.Write.Failed != 10 || d.Read.Count != 1 || d.Count() != 101 {
		t.Fatalf("difference %+v", d)
	}
	for q, want := range map[float64]float64{.5: .050, .99: .099, 1: .1} {
		if got := d.Write.Quantile(q); got < want || got > want*1.25 {
			t.Errorf("quantile %g is %g, want about %g", q, got, want)
		}
	}
	if math.Abs(d.Write.Seconds-5.05) > 1e-6 {
		t.Errorf("%g seconds together", d.Write.Seconds)
	}
	if (Counts{}).Quantile(.5) != 0 {
		t.Error("a quantile of nothing")
	}
	// Another leader has begun at zero.
	if d := before.Sub(r.Snapshot()); d.Write.Count != 1000 {
		t.Errorf("difference to a later one: %+v", d.Write)
	}
}

func TestCumulativeCounts(t *testing.T) {
	var h Histogram
	for _, d := range []time.Duration{0, 16 * time.Microsecond, 17 * time.Microsecond, time.Millisecond, time.Hour} {
		h.Observe(d)
	}
	c := h.Snapshot()
	got := c.Cumulative()
	for le, want := range map[float64]uint64{16e-6: 2, 32e-6: 3, 1024e-6: 4, 16777216e-6: 4} {
		if got[le] != want {
			t.Errorf("%d of at most %gs, want %d", got[le], le, want)
		}
	}
	if c.Count != 5 {
		t.Errorf("%d in all", c.Count)
	}
	if len(got) != lastPower-firstPower+1 {
		t.Errorf("%d bounds", len(got))
	}
	// The longest durations have no bound, and survive JSON.
	raw, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var back Counts
	if err := json.Unmarshal(raw, &back); err != nil || !reflect.DeepEqual(back, c) {
		t.Errorf("%s becomes %+v: %v", raw, back, err)
	}
	if q := c.Quantile(1); q < 16 {
		t.Errorf("the longest is %gs", q)
	}
}

func TestConcurrentRequests(t *testing.T) {
	var r Requests
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			defer r.Stream()()
			for i := range 1000 {
				r.Done(Class(i%3), time.Duration(i)*time.Microsecond, i%2 == 0)
				if i%100 == 0 {
					r.Snapshot()
				}
			}
		})
	}
	wg.Wait()
	s := r.Snapshot()
	if s.Count() != 8000 || s.Streams != 0 || s.Read.Failed+s.Write.Failed+s.Other.Failed != 4000 {
		t.Errorf("counted %d, %d streams", s.Count(), s.Streams)
	}
}

func TestClasses(t *testing.T) {
	for method, want := range map[string]Class{
		"/etcdserverpb.KV/Range": Read, "/etcdserverpb.KV/Put": Write, "/etcdserverpb.KV/Txn": Write,
		"/etcdserverpb.KV/DeleteRange": Write, "/etcdserverpb.KV/Compact": Other, "/etcdserverpb.Lease/LeaseGrant": Other, "": Other,
	} {
		if got := ClassOf(method); got != want {
			t.Errorf("%s is %s", method, got)
		}
	}
}

func BenchmarkDone(b *testing.B) {
	var r Requests
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r.Done(Write, 300*time.Microsecond, false)
		}
	})
}
