package wire

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A gRPC handler must not make a gRPC call, because with calls inside calls two members could
// wait for each other. The guard enforces this: it marks a handler's context, and refuses a
// call with a marked context.

type inHandler struct{}

// GuardServer returns the options of every gRPC server of a member.
func GuardServer() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			return h(context.WithValue(ctx, inHandler{}, true), req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			return h(srv, &markedStream{ServerStream: s, ctx: context.WithValue(s.Context(), inHandler{}, true)})
		}),
	}
}

type markedStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *markedStream) Context() context.Context { return s.ctx }

// errNested is the error of a call from a handler.
var errNested = status.Error(codes.Internal, "a gRPC handler must not make a gRPC call: post an event to the loop instead")

// GuardClient returns the options of every connection to another member.
func GuardClient() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			if ctx.Value(inHandler{}) != nil {
				return errNested
			}
			return next(ctx, method, req, reply, cc, opts...)
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			if ctx.Value(inHandler{}) != nil {
				return nil, errNested
			}
			return next(ctx, desc, cc, method, opts...)
		}),
	}
}
