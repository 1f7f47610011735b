package state

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/rules/core"
)

// Request hands an operator's request to the loop and waits for the answer. The error is a gRPC
// status.
func (s *Shared) Request(ctx context.Context, event func(ref chan core.Answer) core.Event) (core.Answer, error) {
	ref := make(chan core.Answer, 1)
	s.Post(event(ref))
	select {
	case answer := <-ref:
		if answer.Refused != "" {
			return answer, status.Error(codes.FailedPrecondition, "dynast: "+answer.Refused)
		}
		return answer, nil
	case <-ctx.Done():
		return core.Answer{}, status.FromContextError(ctx.Err()).Err()
	case <-s.Ended():
		return core.Answer{}, status.Error(codes.Unavailable, "dynast: the leader is ending")
	}
}
