package api

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/auth"
	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// statusOf maps the errors of etcd's parts to the errors that clients are sent. Clients
// recognize errors by their texts.
var statusOf = map[error]error{
	mvcc.ErrCompacted: rpctypes.ErrGRPCCompacted,
	mvcc.ErrFutureRev: rpctypes.ErrGRPCFutureRev,

	etcderrors.ErrCanceled:        rpctypes.ErrGRPCCanceled,
	etcderrors.ErrCorrupt:         rpctypes.ErrGRPCCorrupt,
	etcderrors.ErrKeyNotFound:     rpctypes.ErrGRPCKeyNotFound,
	etcderrors.ErrNoSpace:         rpctypes.ErrGRPCNoSpace,
	etcderrors.ErrRequestTooLarge: rpctypes.ErrGRPCRequestTooLarge,
	etcderrors.ErrStopped:         rpctypes.ErrGRPCStopped,
	etcderrors.ErrTimeout:         rpctypes.ErrGRPCTimeout,
	etcderrors.ErrTooManyRequests: rpctypes.ErrGRPCRequestTooManyRequests,
	etcderrors.ErrUnhealthy:       rpctypes.ErrGRPCUnhealthy,

	lease.ErrLeaseExists:      rpctypes.ErrGRPCLeaseExist,
	lease.ErrLeaseNotFound:    rpctypes.ErrGRPCLeaseNotFound,
	lease.ErrLeaseTTLTooLarge: rpctypes.ErrGRPCLeaseTTLTooLarge,

	auth.ErrAuthFailed:           rpctypes.ErrGRPCAuthFailed,
	auth.ErrAuthNotEnabled:       rpctypes.ErrGRPCAuthNotEnabled,
	auth.ErrAuthOldRevision:      rpctypes.ErrGRPCAuthOldRevision,
	auth.ErrInvalidAuthMgmt:      rpctypes.ErrGRPCInvalidAuthMgmt,
	auth.ErrInvalidAuthToken:     rpctypes.ErrGRPCInvalidAuthToken,
	auth.ErrPermissionDenied:     rpctypes.ErrGRPCPermissionDenied,
	auth.ErrPermissionNotGiven:   rpctypes.ErrGRPCPermissionNotGiven,
	auth.ErrPermissionNotGranted: rpctypes.ErrGRPCPermissionNotGranted,
	auth.ErrRoleAlreadyExist:     rpctypes.ErrGRPCRoleAlreadyExist,
	auth.ErrRoleEmpty:            rpctypes.ErrGRPCRoleEmpty,
	auth.ErrRoleNotFound:         rpctypes.ErrGRPCRoleNotFound,
	auth.ErrRoleNotGranted:       rpctypes.ErrGRPCRoleNotGranted,
	auth.ErrRootRoleNotExist:     rpctypes.ErrGRPCRootRoleNotExist,
	auth.ErrRootUserNotExist:     rpctypes.ErrGRPCRootUserNotExist,
	auth.ErrUserAlreadyExist:     rpctypes.ErrGRPCUserAlreadyExist,
	auth.ErrUserEmpty:            rpctypes.ErrGRPCUserEmpty,
	auth.ErrUserNotFound:         rpctypes.ErrGRPCUserNotFound,
}

// toStatus turns an error into one that can be sent. gRPC itself converts a context's errors.
func toStatus(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if s, ok := statusOf[err]; ok {
		return s
	}
	if _, ok := status.FromError(err); ok {
		return err // from a Proposer
	}
	var e rpctypes.EtcdError
	if errors.As(err, &e) {
		return status.Error(e.Code(), e.Error())
	}
	return status.Error(codes.Unknown, err.Error())
}
