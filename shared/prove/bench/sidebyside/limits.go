package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/dynast-io/dynast/shared/prove/bench"
)

// echo answers etcd's KV service with messages of the same size, and does nothing else.
type echo struct {
	pb.UnimplementedKVServer
	value []byte
}

func (e *echo) header() *pb.ResponseHeader {
	return &pb.ResponseHeader{ClusterId: 1 << 60, MemberId: 1 << 60, Revision: 1 << 20, RaftTerm: 2}
}

func (e *echo) Put(context.Context, *pb.PutRequest) (*pb.PutResponse, error) {
	return &pb.PutResponse{Header: e.header()}, nil
}

func (e *echo) Range(_ context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	kv := &mvccpb.KeyValue{Key: r.Key, Value: e.value, CreateRevision: 1 << 20, ModRevision: 1 << 20, Version: 1}
	return &pb.RangeResponse{Header: e.header(), Kvs: []*mvccpb.KeyValue{kv}, Count: 1}, nil
}

func (e *echo) Txn(_ context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	resp := &pb.TxnResponse{Header: e.header(), Succeeded: true}
	for _, op := range r.Success {
		answer := &pb.ResponseOp{}
		if get := op.GetRequestRange(); get != nil {
			kv := &mvccpb.KeyValue{Key: get.Key, Value: e.value, CreateRevision: 1 << 20, ModRevision: 1 << 20, Version: 1}
			answer.Response = &pb.ResponseOp_ResponseRange{ResponseRange: &pb.RangeResponse{Kvs: []*mvccpb.KeyValue{kv}, Count: 1}}
		} else {
			answer.Response = &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{}}
		}
		resp.Responses = append(resp.Responses, answer)
	}
	return resp, nil
}

// serveEcho serves until the process gets a signal.
func serveEcho(address string, valueBytes int) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	pb.RegisterKVServer(s, &echo{value: []byte(strings.Repeat("v", valueBytes))})
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	go func() { <-ctx.Done(); s.Stop() }()
	return s.Serve(l)
}

func startEcho(ctx context.Context, r *runner) (*running, error) {
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	endpoint := fmt.Sprintf("127.0.0.1:%d", ports[0])
	cmd, err := r.start("echo", r.self, "echo", endpoint, fmt.Sprint(r.valueBytes))
	if err != nil {
		return nil, err
	}
	run := &running{name: "echo", endpoints: []string{endpoint}, pids: []int{cmd.Process.Pid}}
	return run, r.serves(ctx, run, 10*time.Second)
}

const (
	// diskFileBytes is the size of the file, which is written from start to end again and again.
	// It is allocated beforehand, like the segments of a log.
	diskFileBytes = 64 << 20
	// recordOverheadBytes is what a log adds to a key and its value.
	recordOverheadBytes = 48
)

// diskLimit appends and syncs batches with one write for each client for the given time. This is
// the throughput of a log that does nothing else.
func diskLimit(ctx context.Context, dir string, l load, d time.Duration) (*bench.Result, error) {
	f, err := os.OpenFile(filepath.Join(dir, "disk-limit"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, diskFileBytes); err != nil {
		return nil, fmt.Errorf("allocate %s: %w", f.Name(), err)
	}
	batch := []byte(strings.Repeat("x", l.clients*(l.keyBytes+l.valueBytes+recordOverheadBytes)))
	h := hdrhistogram.New(1000, int64(time.Minute), 3)
	var at, n int64
	began := time.Now()
	for time.Since(began) < d && ctx.Err() == nil {
		if at+int64(len(batch)) > diskFileBytes {
			at = 0
		}
		t := time.Now()
		if _, err := f.WriteAt(batch, at); err != nil {
			return nil, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return nil, fmt.Errorf("fdatasync %s: %w", f.Name(), err)
		}
		_ = h.RecordValue(int64(time.Since(t)))
		at += int64(len(batch))
		n += int64(l.clients)
	}
	took := time.Since(began)
	return &bench.Result{Operations: n, PerSecond: float64(n) / took.Seconds(), Latency: bench.Latency{
		P50: time.Duration(h.ValueAtQuantile(50)), P99: time.Duration(h.ValueAtQuantile(99)), Max: time.Duration(h.Max())}}, nil
}
