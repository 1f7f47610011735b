package serve

import (
	"context"
	"net"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/txn"
	"google.golang.org/grpc"

	"github.com/dynast-io/dynast/shared/client/api"
	"github.com/dynast-io/dynast/shared/client/web"
	"github.com/dynast-io/dynast/shared/replica/store"
	"github.com/dynast-io/dynast/worker/state"
)

// DrainTimeout bounds how long a stopping leader waits for requests under way.
const DrainTimeout = 3 * time.Second

const (
	// sortTimeout is how long a new connection may take to show its protocol when the leader
	// stops serving.
	sortTimeout = 200 * time.Millisecond
	// lingerTimeout is how long a client without requests may take to disconnect.
	lingerTimeout = 300 * time.Millisecond
	// farewellTimeout is how long HTTP clients with keep-alive connections may take to learn
	// that they must reconnect. Clients are still served during that time.
	farewellTimeout = 30 * time.Millisecond
	// settleTimeout is how long the leader waits for a moment at which no client is about to
	// renew a lease for the first time. Clients are still served during that time.
	settleTimeout = 500 * time.Millisecond
)

// server serves clients. It exists only in a leader.
type server struct {
	api  *api.API
	grpc *grpc.Server
	http *web.Server
	// split passes the connections to both.
	split *web.Split
}

// split serves gRPC and HTTP on the one client address.
func (c *Clients) split(l net.Listener) *web.Split {
	g := c.gate(l)
	if c.tls == nil {
		return web.NewSplit(l, nil, g)
	}
	return web.NewSplit(l, c.tls.Config(), g)
}

// stop answers the requests of both protocols that were accepted, within DrainTimeout. It ends
// streams that would never end by themselves, including those behind the HTTP gateway. It asks
// clients to reconnect (GOAWAY). Their next requests wait in the listening socket's queue for
// the next leader, so none of them fails.
func (c *server) stop() {
	last, enough := context.WithTimeout(context.Background(), farewellTimeout)
	c.http.Farewell(last)
	enough()
	last, enough = context.WithTimeout(context.Background(), settleTimeout)
	c.api.Settle(last)
	enough()
	ctx, cancel := context.WithTimeout(context.Background(), DrainTimeout)
	defer cancel()
	last, enough = context.WithTimeout(ctx, sortTimeout)
	c.split.Drain(last)
	enough()
	c.api.Shutdown()
	// HTTP stops first: a request over HTTP needs the gRPC server.
	last, enough = state.Quiet(ctx, lingerTimeout, c.http.InFlight)
	c.http.Settle(last)
	c.http.Shutdown(last)
	enough()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.grpc.GracefulStop()
	}()
	// The time starts here: before, no client knew that it must reconnect.
	last, enough = state.Quiet(ctx, lingerTimeout, c.api.InFlight)
	defer enough()
	select {
	case <-done:
	case <-last.Done():
		go c.grpc.Stop()
		select {
		case <-done:
		case <-time.After(lingerTimeout): // whatever is left ends with the process
		}
	}
}

// node is this process as health checks see it.
type node struct{ replica Replica }

var _ web.Node = node{}

func (n node) store() *store.Store { return n.replica.Current().Store }

func (n node) Alarms() []*pb.AlarmMember {
	return n.store().Alarms().Get(pb.AlarmType_NONE)
}

// Read reads the first key as a request would, without checking permissions.
func (n node) Read(ctx context.Context) error {
	st := n.store()
	_, _, err := txn.Range(ctx, st.Logger(), st.KV(), &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, KeysOnly: true, Limit: 1}, false)
	return err
}

func (n node) AuthEnabled() bool { return n.store().Auth().IsAuthEnabled() }
