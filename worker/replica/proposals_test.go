package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/etcdserver/apply"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func free(*pb.InternalRaftRequest) error { return nil }

func put(key string) *pb.InternalRaftRequest {
	return &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte(key), Value: make([]byte, 100)}}
}

// queued waits until n proposals are in the queue or waiting.
func (p *Proposals) queued(t *testing.T, n int) {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		p.mu.Lock()
		have := len(p.queue) + len(p.waiting)
		p.mu.Unlock()
		if have == n {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%d proposals, want %d", have, n)
		case <-time.After(time.Millisecond):
		}
	}
}

func TestProposalsAreAnsweredInOrder(t *testing.T) {
	p := newProposals(100, 1<<20, free)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			res, err := p.Propose(context.Background(), put(fmt.Sprint(i)))
			if err != nil || res.Err != nil {
				t.Errorf("propose: %v, %v", res, err)
			}
		})
	}
	p.queued(t, 20)
	first := p.take(8, 3, 15, 1<<20)
	second := p.take(23, 3, 15, 1<<20)
	if len(first) != 15 || len(second) != 5 || first[0].Index != 8 || second[4].Index != 27 || second[0].Epoch != 3 {
		t.Fatalf("taken: %d from %d, %d", len(first), first[0].Index, len(second))
	}
	p.applied(7, &apply.Result{Err: errors.New("no proposal has this index")})
	for i := uint64(8); i <= 27; i++ {
		p.applied(i, &apply.Result{})
	}
	wg.Wait()
	if p.bytes != 0 {
		t.Errorf("%d bytes are still counted", p.bytes)
	}
}

func TestProposalsPastTheBoundAreRefused(t *testing.T) {
	for name, p := range map[string]*Proposals{
		"requests": newProposals(2, 1<<20, free),
		"bytes":    newProposals(100, 250, free),
	} {
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { _, _ = p.Propose(context.Background(), put("k")) })
		}
		p.queued(t, 2)
		_, err := p.Propose(context.Background(), put("one too many"))
		if !errors.Is(err, rpctypes.ErrGRPCRequestTooManyRequests) || status.Code(err) != codes.ResourceExhausted {
			t.Errorf("%s: %v", name, err)
		}
		// Proposals that wait to be applied count too.
		for i := range p.take(1, 1, 10, 1<<20) {
			p.applied(uint64(i+1), &apply.Result{})
		}
		wg.Wait()
		if _, err := p.Propose(canceled(), put("room again")); status.Code(err) != codes.Canceled {
			t.Errorf("%s: after there was room: %v", name, err)
		}
	}
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func TestDrainAnswersAcceptedAndRefusesNew(t *testing.T) {
	p := newProposals(10, 1<<20, free)
	answered := make(chan error, 1)
	go func() {
		_, err := p.Propose(context.Background(), put("k"))
		answered <- err
	}()
	p.queued(t, 1)
	idle := p.Drain()
	if _, err := p.Propose(context.Background(), put("late")); status.Code(err) != codes.Unavailable {
		t.Errorf("a late proposal: %v", err)
	}
	select {
	case <-idle:
		t.Error("idle with a proposal that is not answered")
	default:
	}
	p.take(1, 1, 10, 1<<20)
	p.applied(1, &apply.Result{})
	<-idle
	if err := <-answered; err != nil {
		t.Errorf("the accepted proposal: %v", err)
	}
}

func TestGuardRefusesBeforeQueueing(t *testing.T) {
	p := newProposals(10, 1<<20, func(*pb.InternalRaftRequest) error { return rpctypes.ErrGRPCNoSpace })
	if _, err := p.Propose(context.Background(), put("k")); !errors.Is(err, rpctypes.ErrGRPCNoSpace) {
		t.Errorf("propose: %v", err)
	}
	p.queued(t, 0)
}

func TestIndicesOfRefusedBatchAreReused(t *testing.T) {
	p := newProposals(100, 1<<20, free)
	noRoom := errors.New("no room")
	var wg sync.WaitGroup
	var refused, done atomic.Int32
	for i := range 5 {
		wg.Go(func() {
			res, err := p.Propose(context.Background(), put(fmt.Sprint(i)))
			switch {
			case err != nil:
				t.Errorf("propose: %v", err)
			case errors.Is(res.Err, noRoom):
				refused.Add(1)
			default:
				done.Add(1)
			}
		})
	}
	p.queued(t, 5)
	p.take(8, 3, 2, 1<<20)
	p.take(10, 3, 2, 1<<20)
	p.refuse(2, noRoom)
	last := p.take(10, 3, 2, 1<<20)
	if len(last) != 1 || last[0].Index != 10 {
		t.Fatalf("taken: %+v", last)
	}
	for i := uint64(8); i <= 10; i++ {
		p.applied(i, &apply.Result{})
	}
	wg.Wait()
	if refused.Load() != 2 || done.Load() != 3 || p.bytes != 0 {
		t.Errorf("%d refused, %d applied, %d bytes are still counted", refused.Load(), done.Load(), p.bytes)
	}
}

func TestBatchIsBoundedByBytes(t *testing.T) {
	p := newProposals(100, 1<<20, free)
	for range 6 {
		go func() { _, _ = p.Propose(t.Context(), put("k")) }()
	}
	p.queued(t, 6)
	size := len(p.queue[0].data)
	for i, limit := range []int{1, 2 * size, 3*size - 1} {
		if got, want := len(p.take(1, 1, 100, limit)), []int{1, 2, 2}[i]; got != want {
			t.Errorf("with %d bytes: %d proposals, want %d", limit, got, want)
		}
	}
	for i := range uint64(5) {
		p.applied(i+1, &apply.Result{})
	}
	p.take(6, 1, 100, 1)
	p.applied(6, &apply.Result{})
}

// told reports whether the writer was notified.
func (p *Proposals) told() bool {
	select {
	case <-p.notify:
		return true
	default:
		return false
	}
}

func TestProposalsCollectDuringFsync(t *testing.T) {
	p := newProposals(10_000, 1<<30, free)
	var wg sync.WaitGroup
	propose := func(n, bytes int) {
		for range n {
			wg.Go(func() {
				r := put("k")
				r.Put.Value = make([]byte, bytes)
				if _, err := p.Propose(context.Background(), r); err != nil {
					t.Errorf("propose: %v", err)
				}
			})
		}
	}
	answer := func(es int, next uint64) {
		for i := range uint64(es) {
			p.applied(next+i, &apply.Result{})
		}
	}
	propose(1, 10)
	p.queued(t, 1)
	if !p.told() || len(p.take(1, 1, maxBatch, maxBatchBytes)) != 1 {
		t.Fatal("the first proposal has to wait")
	}
	propose(20, 10)
	p.queued(t, 21)
	if p.told() {
		t.Error("proposals are taken although an fsync runs")
	}
	p.synced()
	if !p.told() || len(p.take(2, 1, maxBatch, maxBatchBytes)) != 20 {
		t.Error("the proposals are not one batch after the fsync")
	}
	propose(2, collectBytes)
	p.queued(t, 23)
	if !p.told() || len(p.take(22, 1, maxBatch, maxBatchBytes)) != 2 {
		t.Error("large proposals wait for an fsync")
	}
	// No fsync follows a refused batch.
	propose(1, 10)
	p.queued(t, 24)
	p.synced()
	p.take(24, 1, maxBatch, maxBatchBytes)
	p.told()
	p.refuse(1, errors.New("no room"))
	propose(1, 10)
	p.queued(t, 24)
	if !p.told() || len(p.take(24, 1, maxBatch, maxBatchBytes)) != 1 {
		t.Error("a proposal after a refused batch is never taken")
	}
	answer(24, 1)
	wg.Wait()
}

func TestOnlyUnchangedRequestsAreShared(t *testing.T) {
	p := newProposals(100, 1<<20, free)
	var wg sync.WaitGroup
	rs := []*pb.InternalRaftRequest{put("a"), {LeaseGrant: &pb.LeaseGrantRequest{ID: 1}}, {Txn: &pb.TxnRequest{}}}
	for i, r := range rs {
		wg.Go(func() { _, _ = p.Propose(context.Background(), r) })
		p.queued(t, i+1)
	}
	p.take(8, 3, 10, 1<<20)
	got := p.requests(6, 10) // some before, some after
	want := []*pb.InternalRaftRequest{nil, nil, rs[0], nil, rs[2], nil, nil, nil, nil, nil}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("index %d: %v, want %v", 6+i, got[i], want[i])
		}
	}
	for i := uint64(8); i <= 10; i++ {
		p.applied(i, &apply.Result{})
	}
	wg.Wait()
}

// A write that is not acknowledged in time gets an error. Its entry may still be applied.
func TestUnacknowledgedProposalTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProposals(100, 1<<20, free)
		answers := make(chan error, 3)
		propose := func(key string) {
			go func() {
				_, err := p.Propose(t.Context(), put(key))
				answers <- err
			}()
			synctest.Wait()
		}
		propose("taken")
		p.take(1, 1, 10, 1<<20)
		propose("queued")
		time.Sleep(proposeTimeout - time.Second)
		propose("young")
		select {
		case err := <-answers:
			t.Fatalf("answered too early: %v", err)
		default:
		}
		time.Sleep(time.Second + sweepInterval)
		for range 2 {
			if err := <-answers; !errors.Is(err, rpctypes.ErrGRPCTimeout) {
				t.Errorf("an old proposal: %v", err)
			}
		}
		p.take(2, 1, 10, 1<<20)
		for i := range uint64(3) {
			p.applied(1+i, &apply.Result{})
		}
		if err := <-answers; err != nil {
			t.Errorf("the young proposal: %v", err)
		}
		if p.bytes != 0 || p.Pending() != 0 {
			t.Errorf("%d bytes, %d proposals are still counted", p.bytes, p.Pending())
		}
		time.Sleep(sweepInterval)
		synctest.Wait()
		if p.sweeping {
			t.Error("sweeps go on although no proposal waits")
		}
	})
}

// A client that gives up is answered soon, and its write is still in the queue.
func TestProposalOfClientThatGaveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProposals(100, 1<<20, free)
		ctx, giveUp := context.WithCancel(t.Context())
		answered := make(chan error)
		go func() {
			_, err := p.Propose(ctx, put("k"))
			answered <- err
		}()
		synctest.Wait()
		giveUp()
		began := time.Now()
		if err := <-answered; status.Code(err) != codes.Canceled {
			t.Errorf("propose: %v", err)
		}
		if took := time.Since(began); took > sweepInterval {
			t.Errorf("the client waited for %s", took)
		}
		idle := p.Drain()
		if len(p.take(1, 1, 10, 1<<20)) != 1 {
			t.Error("the write is not in the queue")
		}
		p.applied(1, &apply.Result{})
		<-idle
	})
}
