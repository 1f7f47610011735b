package store

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/dynast-io/dynast/shared/rules/entry"
)

func benchStore(b *testing.B) *Store {
	b.Helper()
	b.Setenv("ETCD_VERIFY", "none")
	s := open(b, b.TempDir())
	s.Promote(0)
	return s
}

// benchData returns puts of 256-byte values to many keys.
func benchData(b *testing.B) [][]byte {
	b.Helper()
	out := make([][]byte, 1000)
	for i := range out {
		out[i] = put(b, fmt.Sprintf("key%06d", rand.IntN(100_000)), strings.Repeat("v", 256))
	}
	return out
}

// BenchmarkApplyPut measures the cost of one entry, commits included.
func BenchmarkApplyPut(b *testing.B) {
	s, entries := benchStore(b), benchData(b)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		res, err := s.Apply(entry.Entry{Index: uint64(i + 1), Epoch: 1, Data: entries[i%len(entries)]})
		if err != nil || res.Err != nil {
			b.Fatal(err, res)
		}
	}
}

// BenchmarkApplyRequest measures the same for the leader, which has the decoded request.
func BenchmarkApplyRequest(b *testing.B) {
	s, entries := benchStore(b), benchData(b)
	requests := make([]*pb.InternalRaftRequest, len(entries))
	for i, data := range entries {
		requests[i] = &pb.InternalRaftRequest{}
		if err := proto.Unmarshal(data, requests[i]); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		e := entry.Entry{Index: uint64(i + 1), Epoch: 1, Data: entries[i%len(entries)]}
		res, err := s.ApplyRequest(e, requests[i%len(entries)])
		if err != nil || res.Err != nil {
			b.Fatal(err, res)
		}
	}
}

// benchTxns returns the usual transaction on 10,000 keys: if the version is so, put and get, else
// get.
func benchTxns(b *testing.B, holds bool) [][]byte {
	b.Helper()
	out := make([][]byte, 1000)
	for i := range out {
		key, result := fmt.Appendf(nil, "key%06d", rand.IntN(10_000)), pb.Compare_LESS
		if holds {
			result = pb.Compare_GREATER
		}
		get := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key}}}
		out[i] = data(b, &pb.InternalRaftRequest{Txn: &pb.TxnRequest{
			Compare: []*pb.Compare{{Target: pb.Compare_VERSION, Result: result, Key: key, TargetUnion: &pb.Compare_Version{Version: -1}}},
			Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: make([]byte, 256)}}}, get},
			Failure: []*pb.RequestOp{get},
		}})
	}
	return out
}

// BenchmarkApplyTxn measures the cost of a transaction. If it is refused, every other entry is a
// put.
func BenchmarkApplyTxn(b *testing.B) {
	for _, lead := range []bool{true, false} {
		for _, holds := range []bool{true, false} {
			b.Run(fmt.Sprintf("leader=%v/holds=%v", lead, holds), func(b *testing.B) { benchmarkApplyTxn(b, lead, holds) })
		}
	}
}

func benchmarkApplyTxn(b *testing.B, lead, holds bool) {
	s, entries, puts := benchStore(b), benchTxns(b, holds), benchData(b)
	for i := range entries {
		if !holds && i%2 == 0 {
			entries[i] = puts[i]
		}
	}
	requests := make([]*pb.InternalRaftRequest, len(entries))
	if !lead {
		s.Demote()
	}
	for i := 0; lead && i < len(entries); i++ {
		requests[i] = &pb.InternalRaftRequest{}
		if err := proto.Unmarshal(entries[i], requests[i]); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		e := entry.Entry{Index: uint64(i + 1), Epoch: 1, Data: entries[i%len(entries)]}
		if res, err := s.ApplyRequest(e, requests[i%len(entries)]); err != nil || res != nil && res.Err != nil {
			b.Fatal(err, res)
		}
	}
}

// BenchmarkApplyLease measures the cost of a lease that is granted and revoked.
func BenchmarkApplyLease(b *testing.B) {
	s := benchStore(b)
	b.ReportAllocs()
	for i := range b.N {
		for j, r := range []*pb.InternalRaftRequest{grantOf(int64(i+1), 60), revokeOf(int64(i + 1))} {
			res, err := s.Apply(entry.Entry{Index: uint64(2*i + j + 1), Epoch: 1, Data: data(b, r)})
			if err != nil || res.Err != nil {
				b.Fatal(err, res)
			}
		}
	}
}

// BenchmarkOpen opens a database of STORE_BENCH_KEYS keys (100,000) of 256 bytes, and reports
// how much of the time the verification takes.
func BenchmarkOpen(b *testing.B) {
	keys := 100_000
	if k := os.Getenv("STORE_BENCH_KEYS"); k != "" {
		fmt.Sscan(k, &keys)
	}
	dir := b.TempDir()
	s, err := Open(Config{Dir: dir})
	if err != nil {
		b.Fatal(err)
	}
	for i := range keys {
		if _, err := s.Apply(entry.Entry{Index: uint64(i + 1), Epoch: 1, Data: put(b, fmt.Sprint("key", i), strings.Repeat("v", 256))}); err != nil {
			b.Fatal(err)
		}
	}
	size := s.Size()
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	var looking time.Duration
	for range b.N {
		began := time.Now()
		if err := verify(Path(dir), 0); err != nil {
			b.Fatal(err)
		}
		looking += time.Since(began)
		s, err := Open(Config{Dir: dir})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(looking.Milliseconds())/float64(b.N), "verify-ms/op")
	b.ReportMetric(float64(size)/(1<<20), "MiB")
}

// BenchmarkPromoteWithLeases measures the time that 10,000 leases add to a takeover.
func BenchmarkPromoteWithLeases(b *testing.B) {
	path := filepath.Join(b.TempDir(), "deadlines")
	s, err := Open(Config{Dir: b.TempDir(), Deadlines: deadlinesAt(b, path, 7)})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	s.Promote(0)
	for id := range int64(10_000) {
		if _, err := s.Apply(entry.Entry{Index: uint64(id) + 1, Epoch: 1, Data: data(b, grantOf(id+1, 60+id%1000))}); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		s.Demote()
		s.Promote(0)
	}
}
