package api

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/txn"
)

// BenchmarkGet compares the two ways to read one key, with one write to a given number of
// reads.
func BenchmarkGet(b *testing.B) {
	b.Setenv("ETCD_VERIFY", "none")
	s := serve(b, nil)
	write := func() {
		r := &pb.PutRequest{Key: fmt.Appendf(nil, "key%05d", rand.IntN(10_000)), Value: []byte(strings.Repeat("v", 256))}
		if res, err := s.proposer.Propose(b.Context(), &pb.InternalRaftRequest{Put: r}); err != nil || res.Err != nil {
			b.Fatal(err, res)
		}
	}
	for range 5000 {
		write()
	}
	ways := map[string]func(*pb.RangeRequest) error{
		"copied": func(r *pb.RangeRequest) error {
			_, _, err := txn.Range(b.Context(), s.store.Logger(), s.store.KV(), r, true)
			return err
		},
		"locked": func(r *pb.RangeRequest) error { _, err := s.api.get(b.Context(), r); return err },
	}
	for _, reads := range []int{1, 10, 1000} {
		for name, read := range ways {
			b.Run(fmt.Sprintf("%s/%d", name, reads), func(b *testing.B) {
				b.ReportAllocs()
				for i := range b.N {
					if i%reads == 0 {
						b.StopTimer()
						write()
						b.StartTimer()
					}
					if err := read(&pb.RangeRequest{Key: fmt.Appendf(nil, "key%05d", rand.IntN(10_000))}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
