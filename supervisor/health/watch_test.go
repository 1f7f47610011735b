package health

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynast-io/dynast/shared/config"
)

// failing is a check whose attempts fail without any I/O, so that it can run on a fake clock.
var failing = config.Check{Kind: config.CheckExec, Interval: 10 * time.Second, Timeout: time.Second}

// results runs Watch on a fake clock for a time, and returns when it reported.
func results(t *testing.T, c config.Check, once bool, during time.Duration) (at []time.Duration, errs []error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), during)
		defer cancel()
		start := time.Now()
		Watch(ctx, c, Target{}, once, func(err error) {
			at, errs = append(at, time.Since(start)), append(errs, err)
		})
	})
	return at, errs
}

func TestReadyCheckStartsAtOnce(t *testing.T) {
	at, errs := results(t, failing, true, 25*time.Second)
	if len(at) != 3 || at[0] != 0 || at[1] != 10*time.Second || at[2] != 20*time.Second || errs[2] == nil {
		t.Errorf("results at %v: %v", at, errs)
	}
}

// A thousand alive checks that begin together do not ask together.
func TestAliveChecksAreSpread(t *testing.T) {
	const checks, parts = 1000, 10
	var perPart [parts]int
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), failing.Interval-1)
		defer cancel()
		start, first := time.Now(), make(chan time.Duration, checks)
		for range checks {
			go Watch(ctx, failing, Target{}, false, func(error) { first <- time.Since(start) })
		}
		<-ctx.Done()
		synctest.Wait()
		for range len(first) {
			perPart[parts*<-first/failing.Interval]++
		}
	})
	for part, n := range perPart {
		if n < checks/parts/2 || n > checks/parts*2 {
			t.Errorf("%d of %d checks in part %d of the interval: %v", n, checks, part, perPart)
		}
	}
}

func TestAliveCheckRepeats(t *testing.T) {
	at, _ := results(t, failing, false, 45*time.Second)
	if len(at) < 4 || len(at) > 5 {
		t.Fatalf("results at %v", at)
	}
	for i := range at[1:] {
		if at[i+1]-at[i] != failing.Interval {
			t.Errorf("results at %v", at)
		}
	}
}

func TestDelay(t *testing.T) {
	at, errs := results(t, config.Check{Kind: config.CheckDelay, Delay: 3 * time.Second, Interval: time.Second}, true, time.Minute)
	if len(at) != 1 || at[0] != 3*time.Second || errs[0] != nil {
		t.Errorf("results at %v: %v", at, errs)
	}
	if at, _ := results(t, config.Check{Kind: config.CheckDelay, Delay: 3 * time.Second}, true, time.Second); len(at) != 0 {
		t.Errorf("a delay that was ended reported at %v", at)
	}
}

func TestNotifyReportsNothing(t *testing.T) {
	if at, _ := results(t, config.Check{Kind: config.CheckNotify, Interval: time.Second, Timeout: time.Second}, true, time.Minute); len(at) != 0 {
		t.Errorf("results at %v", at)
	}
}

// A ready check ends with its first success. An alive check goes on, and reports nothing once its
// context has ended.
func TestWatchEnds(t *testing.T) {
	var asked atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer s.Close()
	c := config.Check{Kind: config.CheckHTTP, Target: s.URL, Interval: time.Millisecond, Timeout: long}
	var ok, failed int
	count := func(err error) {
		if err == nil {
			ok++
		} else {
			failed++
		}
	}
	Watch(t.Context(), c, Target{}, true, count)
	if ok != 1 || failed != 2 {
		t.Errorf("%d successes and %d failures", ok, failed)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	Watch(ctx, c, Target{}, false, func(err error) {
		if count(err); ok == 5 {
			cancel()
		}
	})
	if ok != 5 || failed != 2 {
		t.Errorf("%d successes and %d failures", ok, failed)
	}
}

// An attempt that is under way when the context ends is not a failure of the program.
func TestEndedAttemptIsNotReported(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watched := make(chan error, 1)
	go func() {
		var reported error
		c := config.Check{Kind: config.CheckHTTP, Target: "http://" + l.Addr().String(), Interval: time.Millisecond, Timeout: long}
		Watch(ctx, c, Target{}, true, func(err error) { reported = errors.Join(errors.New("reported"), err) })
		watched <- reported
	}()
	conn, err := l.Accept() // the attempt is under way
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cancel()
	if err := <-watched; err != nil {
		t.Error(err)
	}
}
