package bench

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server answers puts and gets, and fails every failEach-th put.
type server struct {
	pb.UnimplementedKVServer
	puts, gets, txns atomic.Int64
	failEach         int64
}

func (s *server) Put(context.Context, *pb.PutRequest) (*pb.PutResponse, error) {
	if n := s.puts.Add(1); s.failEach > 0 && n%s.failEach == 0 {
		return nil, status.Error(codes.FailedPrecondition, "not today")
	}
	return &pb.PutResponse{Header: &pb.ResponseHeader{}}, nil
}

func (s *server) Range(_ context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	s.gets.Add(1)
	return &pb.RangeResponse{Header: &pb.ResponseHeader{}, Kvs: []*mvccpb.KeyValue{{Key: r.Key}}, Count: 1}, nil
}

func (s *server) Txn(_ context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	s.txns.Add(int64(len(r.Success)))
	return &pb.TxnResponse{Header: &pb.ResponseHeader{}, Succeeded: true}, nil
}

func serve(t *testing.T, s *server) Target {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	pb.RegisterKVServer(g, s)
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(l) }()
	t.Cleanup(func() { g.Stop(); <-done })
	return Target{Endpoints: []string{l.Addr().String()}, PIDs: []int{os.Getpid()}}
}

func testLoad(t Target, workload string) Load {
	return Load{Target: t, Workload: workload, Clients: 4, Connections: 2, KeyBytes: 16, ValueBytes: 32, Keys: 250, Total: 300, ReadPercent: 100}
}

func TestEveryRequestIsCountedOnce(t *testing.T) {
	s := &server{}
	res, err := Run(t.Context(), testLoad(serve(t, s), "put"))
	if err != nil {
		t.Fatal(err)
	}
	if res.Operations != 300 || s.puts.Load() != 300 || res.Errors != 0 {
		t.Errorf("%d operations, %d puts at the server, %d errors", res.Operations, s.puts.Load(), res.Errors)
	}
	var inBuckets int64
	for _, b := range res.Histogram {
		inBuckets += b.Count
	}
	l := res.Latency
	if inBuckets != 300 || l.Min <= 0 || l.Min > l.P50 || l.P50 > l.P99 || l.P99 > l.Max {
		t.Errorf("%d requests in the histogram, want 300; %+v", inBuckets, l)
	}
	if res.Servers == nil || res.Servers.RSSBytes == 0 || res.Servers.PSSBytes == 0 || res.Servers.AnonBytes == 0 {
		t.Errorf("the usage of this process, which is the server, has zeros: %+v", res.Servers)
	}
	var text strings.Builder
	if err := res.Render(&text); err != nil || !strings.Contains(text.String(), "300 operations in") {
		t.Errorf("%v\n%s", err, &text)
	}
}

func TestReadsFindWhatWasWrittenBefore(t *testing.T) {
	s := &server{}
	if _, err := Run(t.Context(), testLoad(serve(t, s), "mixed")); err != nil {
		t.Fatal(err)
	}
	if s.txns.Load() != 250 || s.gets.Load() != 300 || s.puts.Load() != 0 {
		t.Errorf("%d keys written before the load, want 250; %d reads, want 300; %d writes, want 0", s.txns.Load(), s.gets.Load(), s.puts.Load())
	}
}

func TestFailuresAreCountedAndNamed(t *testing.T) {
	res, err := Run(t.Context(), testLoad(serve(t, &server{failEach: 3}), "put"))
	if err != nil || res.Operations != 200 || res.Errors != 100 || !strings.Contains(res.FirstError, "not today") {
		t.Errorf("%+v, %v", res, err)
	}
	if _, err := Run(t.Context(), testLoad(serve(t, &server{failEach: 1}), "put")); !errors.Is(err, ErrNothing) || !strings.Contains(err.Error(), "not today") {
		t.Errorf("a server that always fails: %v", err)
	}
}

func TestInvalidLoadsAreRefused(t *testing.T) {
	target := Target{Endpoints: []string{"127.0.0.1:1"}}
	for name, change := range map[string]func(*Load){
		"workload":    func(l *Load) { l.Workload = "dance" },
		"endpoints":   func(l *Load) { l.Endpoints = nil },
		"clients":     func(l *Load) { l.Clients = 0 },
		"connections": func(l *Load) { l.Connections = 0 },
		"keys":        func(l *Load) { l.Keys = 0 },
		"key size":    func(l *Load) { l.KeyBytes = 3 },
		"end":         func(l *Load) { l.Total = 0 },
		"reads":       func(l *Load) { l.ReadPercent = 101 },
	} {
		l := testLoad(target, "put")
		change(&l)
		if _, err := Run(t.Context(), l); err == nil || errors.Is(err, ErrNothing) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Idle(t.Context(), nil, time.Millisecond); !errors.Is(err, ErrNoServers) {
		t.Errorf("idle without servers: %v", err)
	}
}

func TestBucketsDoubleAndCountEachLatency(t *testing.T) {
	h := newHistogram()
	for _, d := range []time.Duration{3 * time.Microsecond, 100 * time.Microsecond, 100 * time.Microsecond, 50 * time.Millisecond} {
		_ = h.RecordValue(int64(d))
	}
	got := buckets(h)
	var total int64
	for i, b := range got {
		total += b.Count
		if i > 0 && b.UpTo != 2*got[i-1].UpTo {
			t.Errorf("bucket %d reaches to %s after %s", i, b.UpTo, got[i-1].UpTo)
		}
	}
	last := got[len(got)-1]
	if total != 4 || got[0].UpTo != 4*time.Microsecond || got[0].Count != 1 || last.Count != 1 || last.UpTo < 50*time.Millisecond || last.UpTo > 100*time.Millisecond {
		t.Errorf("%+v", got)
	}
}

func TestGapOfAllClientsAndOfTheSlowestClient(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(ms int, client int) ack { return ack{start.Add(time.Duration(ms) * time.Millisecond), client} }
	w := &writer{counts: make([]int, 2), acks: []ack{at(0, 0), at(1, 1), at(10, 0), at(11, 1), at(40, 0), at(90, 1), at(500, 0)}}
	if _, _, ok := w.gap(start, start); ok {
		t.Error("the gap is complete although client 1 has not written after the moment")
	}
	w.acks = append(w.acks, at(501, 1))
	together, slowest, ok := w.gap(start, start)
	if !ok || together != 410*time.Millisecond || slowest != 460*time.Millisecond {
		t.Errorf("%s, %s, %v", together, slowest, ok)
	}
}
