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

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/datadir"
	"github.com/dynast-io/dynast/shared/proc"
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

// withLeader calls f until it succeeds, the patience ends, or nobody is there
// who could lead.
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

// deserted reports whether no process of a data directory lives, as far as
// this user may see that.
func deserted(dir *datadir.Dir) bool {
	left, err := owners(dir)
	if err != nil || len(left) > 0 {
		return false
	}
	// A leader on its way up has the lock before it has a slot.
	owner, err := proc.ReadOwner(dir.ClusterLock())
	return errors.Is(err, fs.ErrNotExist) || err == nil && !alive(owner.Identity)
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
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("there is no data directory %s: nothing was ever started there, or another one is meant (--data-dir, --config): %w", path, fs.ErrNotExist)
	}
	if err == nil {
		_, err = os.ReadDir(dir.Path())
	}
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("this user may not look into the data directory: %w (its owner can allow it to a group: chmod g+rx)", err)
	}
	if err != nil {
		return nil, &Error{Code: core.ExitUnreachable, Err: err}
	}
	return dir, nil
}
