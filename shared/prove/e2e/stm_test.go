package e2e

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

const (
	accounts = 5
	opening  = 100 // opening balance of each account
)

func account(i int) string { return fmt.Sprintf("account/%d", i) }

// transfer moves one unit from an account to another, in one software transaction.
func transfer(ctx context.Context, cl *clientv3.Client, from, to int, level concurrency.Isolation) error {
	_, err := concurrency.NewSTM(cl, func(s concurrency.STM) error {
		a, err := strconv.Atoi(s.Get(account(from)))
		if err != nil {
			return err
		}
		b, err := strconv.Atoi(s.Get(account(to)))
		if err != nil {
			return err
		}
		s.Put(account(from), strconv.Itoa(a-1))
		s.Put(account(to), strconv.Itoa(b+1))
		return nil
	}, concurrency.WithAbortContext(ctx), concurrency.WithIsolation(level))
	return err
}

// TestSTMAcrossLeaderKills: several clients use the software transactional memory of the stock
// client, while one leader after the other is killed. At every revision the sum of all accounts
// is the same.
func TestSTMAcrossLeaderKills(t *testing.T) {
	seed, rnd := seeded(t)
	c := start(t)
	ctx := testContext(t)
	cl := c.dial()
	for i := range accounts {
		must(cl.Put(ctx, account(i), strconv.Itoa(opening)))(t)
	}
	first := must(cl.Get(ctx, account(0)))(t).Header.Revision
	running, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	var done atomic.Int64
	for i, level := range []concurrency.Isolation{concurrency.SerializableSnapshot, concurrency.Serializable, concurrency.RepeatableReads} {
		own := c.dial()
		wg.Go(func() {
			for n := i; running.Err() == nil; n++ {
				err := transfer(running, own, n%accounts, (n+1+i)%accounts, level)
				switch {
				case err == nil:
					done.Add(1)
				case running.Err() == nil && !unavailable(err):
					t.Errorf("seed %d: transfer: %v", seed, err)
					return
				}
			}
		})
	}
	for range rounds(3) {
		before := done.Load()
		want := before + 20 + rnd.Int64N(20)
		eventually(t, "more transfers", func() bool { return done.Load() > want || t.Failed() })
		c.nextLeader()
	}
	before := done.Load()
	eventually(t, "more transfers under the last leader", func() bool { return done.Load() > before+20 || t.Failed() })
	stop()
	wg.Wait()
	now := must(cl.Get(ctx, "account/", clientv3.WithPrefix()))(t)
	changed := 0
	for rev := first; rev <= now.Header.Revision; rev++ {
		at := must(cl.Get(ctx, "account/", clientv3.WithPrefix(), clientv3.WithRev(rev)))(t)
		sum := 0
		for _, kv := range at.Kvs {
			n, err := strconv.Atoi(string(kv.Value))
			if err != nil {
				t.Fatal(err)
			}
			sum += n
			if kv.ModRevision == rev {
				changed++
			}
		}
		if sum != accounts*opening {
			t.Fatalf("seed %d: at revision %d the sum of all accounts is %d, want %d: %v", seed, rev, sum, accounts*opening, at.Kvs)
		}
	}
	if int64(changed) < 2*done.Load() {
		t.Errorf("accounts changed %d times, but %d transfers were acknowledged: each one changes two accounts", changed, done.Load())
	}
	t.Logf("%d transfers", done.Load())
}
