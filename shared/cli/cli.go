package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/datadir"
	"github.com/dynast-io/dynast/shared/wire"
)

// ErrUnreachable says that no leader answers.
var ErrUnreachable = errors.New("no leader answers")

// Error is an error with the exit code of the process.
type Error struct {
	Code core.ExitCode
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// takeoverPatience is how long a command waits for a leader: a takeover takes
// milliseconds, one that has to end a stopped leader a heartbeat timeout.
const takeoverPatience = 3 * time.Second

// admin connects to whoever leads the cluster of a data directory.
type admin struct {
	wire.AdminClient
	conn *grpc.ClientConn
}

func dialAdmin(dir *datadir.Dir) (*admin, error) {
	conn, err := grpc.NewClient("passthrough:///admin",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(dir.DialAdmin))
	if err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	return &admin{AdminClient: wire.NewAdminClient(conn), conn: conn}, nil
}

func (a *admin) close() { _ = a.conn.Close() }

// withLeader calls f until it succeeds, or the patience ends.
func withLeader(ctx context.Context, dir *datadir.Dir, patience time.Duration, f func(context.Context, *admin) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := once(ctx, dir, f)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return &Error{Code: core.ExitUnreachable, Err: fmt.Errorf("%w in %s: %w", ErrUnreachable, dir.Path(), err)}
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// once is one attempt on a connection of its own, so that no attempt waits
// for the backoff of the one before.
func once(ctx context.Context, dir *datadir.Dir, f func(context.Context, *admin) error) error {
	a, err := dialAdmin(dir)
	if err != nil {
		return err
	}
	defer a.close()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return f(ctx, a)
}

func openDir(path string) (*datadir.Dir, error) {
	dir, err := datadir.OpenForReading(path)
	if err != nil {
		return nil, &Error{Code: core.ExitUnreachable, Err: err}
	}
	return dir, nil
}
