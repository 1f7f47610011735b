package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/apply"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"golang.org/x/crypto/bcrypt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/dynast-io/dynast/shared/client/gate"
	"github.com/dynast-io/dynast/shared/replica/store"
	"github.com/dynast-io/dynast/shared/rules/entry"
)

func TestMain(m *testing.M) {
	if os.Getenv("ETCD_VERIFY") == "" {
		os.Setenv("ETCD_VERIFY", "all")
	}
	goleak.VerifyTestMain(m)
}

// direct is a Proposer without replication. It applies at once.
type direct struct {
	mu    sync.Mutex
	store *store.Store
	// before may refuse or change a proposal.
	before func(*pb.InternalRaftRequest) error
}

func (d *direct) Propose(_ context.Context, r *pb.InternalRaftRequest) (*apply.Result, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.before != nil {
		if err := d.before(r); err != nil {
			return nil, err
		}
	}
	data, err := proto.Marshal(r)
	if err != nil {
		return nil, err
	}
	return d.store.Apply(entry.Entry{Index: d.store.Applied().Index + 1, Epoch: testEpoch, Data: data})
}

const (
	testEpoch    = 17
	testMemberID = 99
)

// testCluster is a cluster of two members.
type testCluster struct {
	// versions is how often the metadata has changed; nil: never.
	versions *atomic.Uint64
}

func (testCluster) Epoch() uint64 { return testEpoch }
func (testCluster) Members() []Member {
	return []Member{
		{ID: testMemberID, Name: "127.0.0.1:7400", Address: "127.0.0.1:7400", ClientURLs: []string{"http://127.0.0.1:2379"}, IsLeader: true},
		{ID: 100, Name: "127.0.0.1:7401", Address: "127.0.0.1:7401"},
	}
}

func (c testCluster) Metadata() (metadata.MD, uint64) {
	version := uint64(1)
	if c.versions != nil {
		version += c.versions.Load()
	}
	return metadata.Pairs("dynast-leader", "127.0.0.1:7400", "dynast-heir", "127.0.0.1:7401", "dynast-epoch", fmt.Sprint(version)), version
}

// There are two members: the leader, and 100, which can be removed. There is nothing else to
// move or defragment.
func (testCluster) MoveLeader(_ context.Context, id uint64) error {
	if id != testMemberID {
		return rpctypes.ErrGRPCBadLeaderTransferee
	}
	return nil
}

func (testCluster) Remove(_ context.Context, id uint64) error {
	if id != 100 {
		return rpctypes.ErrGRPCMemberNotFound
	}
	return nil
}

func (testCluster) Defragment(context.Context) (bool, error) { return true, nil }

// server is an API on a loopback port.
type server struct {
	address  string
	dir      string // of the store
	store    *store.Store
	proposer *direct
	api      *API
}

func serve(t testing.TB, configure func(*store.Config, *Config)) *server {
	t.Helper()
	sc := store.Config{Dir: t.TempDir(), ClusterID: 5, MemberID: 1, BcryptCost: bcrypt.MinCost}
	c := Config{Cluster: testCluster{}}
	if configure != nil {
		configure(&sc, &c)
	}
	st, err := store.Open(sc)
	if err != nil {
		t.Fatal(err)
	}
	st.Promote(0)
	p := &direct{store: st}
	c.Store = st
	if c.Proposer == nil {
		c.Proposer = p
	}
	api := New(c)
	g := grpc.NewServer(api.ServerOptions()...)
	api.Register(g)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- g.Serve(gate.New("test", gate.Limits{}, nil).Listener(l)) }()
	t.Cleanup(func() {
		g.Stop()
		// A server that is stopped before it began, in a test without clients, is no failure.
		if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return &server{address: l.Addr().String(), dir: sc.Dir, store: st, proposer: p, api: api}
}

// stock is an unmodified etcd client.
func (s *server) stock(t testing.TB) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.address}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// dial makes a bare connection, for requests that the stock client would not send.
func dial(t testing.TB, address string) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}
