package api

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"
	"golang.org/x/crypto/bcrypt"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "seed of the comparison with etcd; 0 is a new one")
	stepsFlag = flag.Int("steps", 2000, "requests of the comparison with etcd")
)

// newSeed is the requested seed, or a new one. The test's log has it.
func newSeed(t *testing.T) uint64 {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	return seed
}

// TestSameAsEtcd sends the same random requests, valid and invalid ones, to a real etcd and to
// an API. All fields of the answers must be the same, except those that name the cluster.
func TestSameAsEtcd(t *testing.T) {
	seed := newSeed(t)
	ours := serve(t, nil)
	their := pb.NewKVClient(dial(t, startEtcd(t)))
	our := pb.NewKVClient(dial(t, ours.address))
	grantLease(t, ours)
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 1))}
	kinds := map[string]int{}
	for step := range *stepsFlag {
		req := g.request()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		want, wantErr := req.send(ctx, their)
		got, gotErr := req.send(ctx, our)
		cancel()
		kinds[fmt.Sprintf("%T %s", req.msg, status.Convert(wantErr).Message())]++
		if status.Code(gotErr) != status.Code(wantErr) || status.Convert(gotErr).Message() != status.Convert(wantErr).Message() {
			t.Fatalf("seed %d step %d: %s\nours: %v\netcd: %v", seed, step, req, gotErr, wantErr)
		}
		if d := difference(got, want); d != "" {
			t.Fatalf("seed %d step %d: %s\n%s", seed, step, req, d)
		}
		g.learn(want)
	}
	for kind, n := range kinds {
		t.Logf("%5d %s", n, kind)
	}
}

func startEtcd(t *testing.T) string {
	t.Helper()
	c := embed.NewConfig()
	c.Dir = t.TempDir()
	c.LogLevel = "error"
	c.LogOutputs = []string{"/dev/null"}
	c.UnsafeNoFsync = true
	c.BcryptCost = uint(bcrypt.MinCost)
	local := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	c.ListenClientUrls, c.ListenPeerUrls = []url.URL{local}, []url.URL{local}
	e, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	select {
	case <-e.Server.ReadyNotify():
	case <-time.After(30 * time.Second):
		t.Fatal("etcd is not ready")
	}
	address := e.Clients[0].Addr().(*net.TCPAddr).String()
	lc := pb.NewLeaseClient(dial(t, address))
	if _, err := lc.LeaseGrant(t.Context(), &pb.LeaseGrantRequest{ID: leaseID, TTL: 3600}); err != nil {
		t.Fatal(err)
	}
	return address
}

const leaseID = 1000

func grantLease(t *testing.T, s *server) {
	t.Helper()
	res, err := s.proposer.Propose(t.Context(), &pb.InternalRaftRequest{LeaseGrant: &pb.LeaseGrantRequest{ID: leaseID, TTL: 3600}})
	if err != nil || res.Err != nil {
		t.Fatal(err, res.Err)
	}
}

// request is a request and the way to send it. A stream has several answers.
type request struct {
	msg  proto.Message
	send func(context.Context, pb.KVClient) ([]proto.Message, error)
}

func (r request) String() string { return fmt.Sprintf("%T{%s}", r.msg, prototext.Format(r.msg)) }

func one[M proto.Message](m M, err error) ([]proto.Message, error) {
	if err != nil {
		return nil, err
	}
	return []proto.Message{m}, nil
}

func requestOf(msg proto.Message) request {
	return request{msg, func(ctx context.Context, kv pb.KVClient) ([]proto.Message, error) {
		switch r := msg.(type) {
		case *pb.RangeRequest:
			return one(kv.Range(ctx, r))
		case *pb.PutRequest:
			return one(kv.Put(ctx, r))
		case *pb.DeleteRangeRequest:
			return one(kv.DeleteRange(ctx, r))
		case *pb.TxnRequest:
			return one(kv.Txn(ctx, r))
		case *pb.CompactionRequest:
			return one(kv.Compact(ctx, r))
		}
		panic("not a request")
	}}
}

func streamOf(r *pb.RangeRequest) request {
	return request{r, func(ctx context.Context, kv pb.KVClient) (all []proto.Message, err error) {
		stream, err := kv.RangeStream(ctx, r)
		if err != nil {
			return nil, err
		}
		for {
			m, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return all, nil
			}
			if err != nil {
				return nil, err
			}
			all = append(all, m)
		}
	}}
}

// difference compares answers, ignoring what names the cluster in headers.
func difference(ours, etcds []proto.Message) string {
	if len(ours) != len(etcds) {
		return fmt.Sprintf("%d answers, etcd gives %d", len(ours), len(etcds))
	}
	for i := range ours {
		for _, m := range []proto.Message{ours[i], etcds[i]} {
			if h := headerOf(m); h != nil {
				h.ClusterId, h.MemberId, h.RaftTerm = 0, 0, 0
			}
		}
		if !proto.Equal(ours[i], etcds[i]) {
			return fmt.Sprintf("answer %d\nours: %s\netcd: %s", i, prototext.Format(ours[i]), prototext.Format(etcds[i]))
		}
	}
	return ""
}

func headerOf(m proto.Message) *pb.ResponseHeader {
	if s, ok := m.(*pb.RangeStreamResponse); ok {
		m = s.RangeResponse
	}
	return m.(interface{ GetHeader() *pb.ResponseHeader }).GetHeader()
}
