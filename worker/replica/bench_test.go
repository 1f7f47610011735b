package replica

import (
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/apply"
	"google.golang.org/protobuf/proto"

	"github.com/dynast-io/dynast/shared/member/wire"
	replog "github.com/dynast-io/dynast/shared/replica/log"
	"github.com/dynast-io/dynast/shared/rules/entry"
)

// BenchmarkPropose measures a write between its handler and the log: it is encoded, queued,
// taken in a batch and answered.
func BenchmarkPropose(b *testing.B) {
	for _, clients := range []int{1, 64} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			p := newProposals(10_000, 1<<26, free)
			stop, stopped := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(stopped)
				for next := uint64(1); ; {
					select {
					case <-p.notify:
					case <-stop:
						return
					}
					for _, e := range p.take(next, 1, maxBatch, maxBatchBytes) {
						p.applied(e.Index, &apply.Result{})
						next = e.Index + 1
					}
					p.synced()
				}
			}()
			b.ReportAllocs()
			b.SetParallelism(clients)
			value := make([]byte, 256)
			b.RunParallel(func(pb1 *testing.PB) {
				for pb1.Next() {
					r := &pb.InternalRaftRequest{Header: &pb.RequestHeader{ID: 1}, Put: &pb.PutRequest{Key: []byte("bench/0000000001"), Value: value}}
					if res, err := p.Propose(b.Context(), r); err != nil || res == nil {
						b.Error(res, err)
					}
				}
			})
			close(stop)
			<-stopped
		})
	}
}

// BenchmarkFollowerAppend measures what a follower does with a batch before it acknowledges:
// it decodes the batch and writes it to its log.
func BenchmarkFollowerAppend(b *testing.B) {
	for _, n := range []int{1, 32} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			l, err := replog.Create(replog.Options{Dir: b.TempDir() + "/log", TailBytes: followerTailBytes}, entry.Position{})
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			es := make([]entry.Entry, n)
			for i := range es {
				es[i] = entry.Entry{Epoch: 1, Data: make([]byte, 320)}
			}
			raw, err := proto.Marshal(wire.FromEntries(entry.Position{}, es))
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				var m wire.Entries
				if err := proto.Unmarshal(raw, &m); err != nil {
					b.Fatal(err)
				}
				m.Prev = wire.FromPosition(l.Last())
				got, err := wire.ToEntries(&m)
				if err != nil {
					b.Fatal(err)
				}
				if err := l.Append(got); err != nil {
					b.Fatal(err)
				}
				if last := l.Last(); last.Index%(1<<16) < uint64(n) { // the log must not fill the disk
					if err := l.Compact(l.First(), last); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
