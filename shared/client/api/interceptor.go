package api

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
	"unicode/utf8"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/client/gate"
	"github.com/dynast-io/dynast/shared/observe/meter"
	"github.com/dynast-io/dynast/shared/replica/store"
)

// unary wraps each request that has one answer. It attaches the metadata after the handler has
// run, so that the roster is as recent as the answer. Nothing has been sent before, even if the
// answer is an error. So the last metadata that a client got on a connection is either current or
// changed after the last answer.
func (a *API) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	a.inFlight.Add(1)
	defer a.inFlight.Add(-1)
	began := time.Now()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			resp, err = nil, a.panicked(info.FullMethod, p)
		}
		took := time.Since(began)
		a.meter.Done(meter.ClassOf(info.FullMethod), took, err != nil)
		a.tell(ctx, began.Add(took))
	}()
	if err := checkClient(ctx); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

// stream wraps each stream. The metadata is sent with the stream's first message.
func (a *API) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	a.inFlight.Add(1)
	defer a.inFlight.Add(-1)
	defer a.meter.Stream()()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = a.panicked(info.FullMethod, p)
		}
	}()
	md, _ := a.cluster.Metadata()
	_ = ss.SetHeader(md)
	if err := checkClient(ss.Context()); err != nil {
		return err
	}
	return handler(srv, ss)
}

// tell attaches the metadata to an answer, unless the client got it with an earlier answer on the
// same connection. Metadata is a tenth of what an answer to a small write allocates. Connections
// that do not come through a gate, such as the one of the HTTP gateway, get it each time.
func (a *API) tell(ctx context.Context, now time.Time) {
	md, version := a.cluster.Metadata()
	client := clientOf(ctx)
	switch {
	case client == nil:
		_ = grpc.SetHeader(ctx, md) // fails only if the connection is gone
	case !client.Knows(version, now):
		client.Tell(now, func() (uint64, error) {
			md, version := a.cluster.Metadata()
			return version, grpc.SendHeader(ctx, md)
		})
	}
}

// clientOf returns the client of a request, or nil if its connection came through no gate.
func clientOf(ctx context.Context) *gate.Peer {
	if p, ok := peer.FromContext(ctx); ok {
		client, _ := p.Addr.(*gate.Peer)
		return client
	}
	return nil
}

// panicked logs a handler's panic. The request gets an error and the process goes on, because a
// handler owns nothing that others need. A damaged database concerns everybody; then the client
// is sent to the next leader.
func (a *API) panicked(method string, p any) error {
	stack := debug.Stack()
	a.logger.Error("a request panicked", "method", method, "panic", p, "stack", string(stack))
	if err := store.FromPanic(p, stack); errors.Is(err, store.ErrCorrupt) {
		a.onDamage(fmt.Errorf("%s: %w", method, err))
		return rpctypes.ErrGRPCStopped
	}
	return status.Error(codes.Internal, "dynast: internal error, see the leader's log")
}

// checkClient refuses a client whose version is not text, as etcd does. (etcd also refuses
// clients that require a leader while there is none. Here the leader itself answers.)
func checkClient(ctx context.Context) error {
	if v := metadata.ValueFromIncomingContext(ctx, rpctypes.MetadataClientAPIVersionKey); len(v) > 0 && !utf8.ValidString(v[0]) {
		return rpctypes.ErrGRPCInvalidClientAPIVersion
	}
	return nil
}
