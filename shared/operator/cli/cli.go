package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/rules/core"
)

// ErrUnreachable means that no leader answers.
var ErrUnreachable = errors.New("no leader answers")

// Error is an error with the exit code of the process.
type Error struct {
	Code core.ExitCode
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// takeoverPatience is how long a command waits for a leader. A takeover takes milliseconds, or
// a heartbeat timeout if the old leader hangs.
const takeoverPatience = 3 * time.Second

// admin is a connection to the current leader of the cluster in a data directory.
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

// withLeader calls f until it succeeds, the patience ends, or no process is left that could
// lead.
func withLeader(ctx context.Context, dir *datadir.Dir, patience time.Duration, f func(context.Context, *admin) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := once(ctx, dir, f)
		if err == nil {
			return nil
		}
		if deserted(dir) {
			return &Error{Code: core.ExitUnreachable, Err: fmt.Errorf("%w: nothing runs in %s; 'dynast up' starts it", ErrUnreachable, dir.Path())}
		}
		select {
		case <-ctx.Done():
			return &Error{Code: core.ExitUnreachable, Err: fmt.Errorf("%w in %s within %s: %s", ErrUnreachable, dir.Path(), patience, status.Convert(err).Message())}
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// deserted reports whether a data directory has no running process, as far as this user is
// allowed to see.
func deserted(dir *datadir.Dir) bool {
	left, err := owners(dir)
	if err != nil || len(left) > 0 {
		return false
	}
	// A leader that is starting holds the lock file before it has a slot.
	owner, err := proc.ReadOwner(dir.ClusterLock())
	return errors.Is(err, fs.ErrNotExist) || err == nil && !alive(owner.Identity)
}

// once makes one attempt. Each attempt has its own connection, so that it does not wait for the
// back-off of the previous one.
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
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("there is no data directory %s: start a cluster with 'dynast up', or name another directory with --data-dir or --config: %w", path, fs.ErrNotExist)
	}
	if err == nil {
		_, err = os.ReadDir(dir.Path())
	}
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("this user may not look into the data directory: %w (its owner can give access to a group: chmod g+rx)", err)
	}
	if err != nil {
		return nil, &Error{Code: core.ExitUnreachable, Err: err}
	}
	return dir, nil
}
