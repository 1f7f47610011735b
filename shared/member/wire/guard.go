package wire

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A gRPC handler must not make a gRPC call, because with calls inside calls two members could
// wait for each other. The guard enforces this: it refuses a call with the context of a handler,
// which gRPC marks.
func inHandler(ctx context.Context) bool { return grpc.ServerTransportStreamFromContext(ctx) != nil }

// errNested is the error of a call from a handler.
var errNested = status.Error(codes.Internal, "a gRPC handler must not make a gRPC call: post an event to the loop instead")

// GuardClient returns the options of every connection to another member.
func GuardClient() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			if inHandler(ctx) {
				return errNested
			}
			return next(ctx, method, req, reply, cc, opts...)
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			if inHandler(ctx) {
				return nil, errNested
			}
			return next(ctx, desc, cc, method, opts...)
		}),
	}
}
