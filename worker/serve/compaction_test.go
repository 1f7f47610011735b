package serve

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.uber.org/zap"

	"github.com/dynast-io/dynast/shared/config"
)

// history grows by 10 revisions a minute and records the compactions that are requested.
type history struct {
	began time.Time
	mu    sync.Mutex
	asked []int64
	fail  error
}

func (h *history) Rev() int64 { return int64(time.Since(h.began)/(6*time.Second)) + 1 }

func (h *history) Compact(_ context.Context, r *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = append(h.asked, r.Revision)
	return nil, h.fail
}

func (h *history) failWith(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fail = err
}

func (h *history) take() []int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := h.asked
	h.asked = nil
	return out
}

// compacting runs a test in a synctest bubble, which has its own clock.
func compacting(t *testing.T, keep config.AutoCompaction, f func(*history, *autoCompaction)) {
	synctest.Test(t, func(t *testing.T) {
		h := &history{began: time.Now()}
		a, err := compactBy(zap.NewNop(), keep, h)
		if err != nil {
			t.Fatal(err)
		}
		a.start()
		f(h, a)
		a.stop()
		synctest.Wait()
	})
}

// pass lets time pass, and the work that is due then finish.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestCompactionByRevisions(t *testing.T) {
	compacting(t, config.AutoCompaction{Revisions: 80}, func(h *history, a *autoCompaction) {
		pass(11 * time.Minute)
		if got := h.take(); got != nil {
			t.Errorf("a follower compacts: %v", got)
		}
		a.lead()
		pass(10 * time.Minute)
		if got := h.take(); !slices.Equal(got, []int64{151 - 80, 201 - 80}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestCompactionByAge(t *testing.T) {
	compacting(t, config.AutoCompaction{Period: time.Hour}, func(h *history, a *autoCompaction) {
		a.lead()
		pass(59 * time.Minute)
		if got := h.take(); got != nil {
			t.Errorf("compacts within the first hour: %v", got)
		}
		pass(2 * time.Minute) // at 1:01, what is older than 0:01
		if got := h.take(); !slices.Equal(got, []int64{1}) {
			t.Errorf("got %v", got)
		}
		pass(time.Hour) // etcd's list of revisions is a tenth longer than the hour
		if got := h.take(); !slices.Equal(got, []int64{541}) {
			t.Errorf("got %v", got)
		}
	})
}

// A follower has recorded the time too, so it compacts when the old leader would have.
func TestCompactionByAgeAcrossATakeover(t *testing.T) {
	compacting(t, config.AutoCompaction{Period: time.Hour}, func(h *history, a *autoCompaction) {
		h.failWith(mvcc.ErrCompacted) // the old leader was there
		pass(2*time.Hour - time.Minute)
		if got := h.take(); got != nil {
			t.Errorf("a follower compacts: %v", got)
		}
		a.lead()
		pass(2 * time.Minute)
		if got := h.take(); !slices.Equal(got, []int64{541}) {
			t.Errorf("got %v", got)
		}
		pass(30 * time.Minute)
		if got := h.take(); got != nil {
			t.Errorf("an already compacted revision counts as a failure: %v", got)
		}
	})
}

func TestFailedCompactionIsTriedAgain(t *testing.T) {
	compacting(t, config.AutoCompaction{Period: time.Hour}, func(h *history, a *autoCompaction) {
		a.lead()
		h.failWith(errors.New("not now"))
		pass(73 * time.Minute)
		if got := h.take(); !slices.Equal(got, []int64{1, 1, 61}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestCompactionOff(t *testing.T) {
	compacting(t, config.AutoCompaction{}, func(h *history, a *autoCompaction) {
		a.lead()
		pass(1000 * time.Hour)
		if got := h.take(); got != nil {
			t.Errorf("got %v", got)
		}
	})
}
