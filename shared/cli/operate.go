package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/datadir"
	"github.com/dynast-io/dynast/shared/proc"
	"github.com/dynast-io/dynast/shared/roster"
	"github.com/dynast-io/dynast/shared/tree"
	"github.com/dynast-io/dynast/shared/wire"
)

// handoverPatience is how long a command waits until a successor leads: the old
// leader answers the requests under way first, and one of them may be long.
const handoverPatience = 30 * time.Second

// onCluster is a command that asks whoever leads the cluster of a data directory
// for something.
func (a *App) onCluster(use, short string, args cobra.PositionalArgs, do func(ctx context.Context, dataDir string, args []string) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: args}
	c := a.WithConfig(cmd)
	if strings.Contains(use, "ADDRESS") {
		cmd.ValidArgsFunction = c.completeMember
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := c.Load()
		if err != nil {
			return err
		}
		return asError(do(cmd.Context(), cfg.DataDir, args))
	}
	return cmd
}

func (a *App) promoteCommand() *cobra.Command {
	return a.onCluster("promote [ADDRESS]", "Hand the leadership over, to the heir or to the follower named, with no failed request", cobra.MaximumNArgs(1),
		func(ctx context.Context, dataDir string, args []string) error {
			to, err := addressArgument(args)
			if err != nil {
				return err
			}
			return Promote(ctx, dataDir, to, os.Stdout)
		})
}

func (a *App) removeCommand() *cobra.Command {
	return a.onCluster("remove ADDRESS", "Retire a member; it is replaced if too few are left", cobra.ExactArgs(1),
		func(ctx context.Context, dataDir string, args []string) error {
			address, err := addressArgument(args)
			if err != nil {
				return err
			}
			return Remove(ctx, dataDir, address, os.Stdout)
		})
}

func (a *App) addCommand() *cobra.Command {
	return a.onCluster("add", "Keep one follower more from now on, also under later leaders", cobra.NoArgs,
		func(ctx context.Context, dataDir string, _ []string) error {
			return Scale(ctx, dataDir, 1, true, os.Stdout)
		})
}

func (a *App) scaleCommand() *cobra.Command {
	return a.onCluster("scale N", "Keep N followers from now on, also under later leaders", cobra.ExactArgs(1),
		func(ctx context.Context, dataDir string, args []string) error {
			n, err := strconv.Atoi(args[0])
			if err != nil || n < 0 || n > core.MaxFollowers {
				return &Error{Code: ExitUsage, Err: fmt.Errorf("scale: %q is no number of followers: 0 to %d are possible", args[0], core.MaxFollowers)}
			}
			return Scale(ctx, dataDir, n, false, os.Stdout)
		})
}

func addressArgument(args []string) (roster.Address, error) {
	if len(args) == 0 {
		return roster.Address{}, nil
	}
	a, err := roster.ParseAddress(args[0])
	if err != nil {
		return a, &Error{Code: ExitUsage, Err: fmt.Errorf("%w; 'dynast tree' shows the addresses", err)}
	}
	return a, nil
}

// Promote hands the leadership over and returns when the successor serves.
func Promote(ctx context.Context, dataDir string, to roster.Address, out io.Writer) error {
	dir, err := openDir(dataDir)
	if err != nil {
		return err
	}
	before, _, err := readTree(ctx, dir)
	if err != nil {
		return err
	}
	request := &wire.PromoteRequest{}
	if to.IsValid() {
		request.Address = to.String()
	}
	var answer *wire.PromoteResponse
	err = askOnce(ctx, dir, func(ctx context.Context, a *admin) (err error) {
		answer, err = a.Promote(ctx, request)
		return err
	})
	if err != nil {
		return err
	}
	began := time.Now()
	after, err := ledAfter(ctx, dir, before.Epoch)
	if err != nil {
		return fmt.Errorf("%s was to succeed %s: %w", answer.Address, before.Leader, err)
	}
	took := time.Since(began).Round(time.Millisecond)
	if after.Leader != answer.Address {
		_, err = fmt.Fprintf(out, "%s leads in epoch %d: %s was to succeed %s and could not\n", after.Leader, after.Epoch, answer.Address, before.Leader)
		return err
	}
	_, err = fmt.Fprintf(out, "%s leads in epoch %d, after %s; it took %s\n", after.Leader, after.Epoch, before.Leader, took)
	return err
}

// ledAfter waits for the leader of a later epoch.
func ledAfter(ctx context.Context, dir *datadir.Dir, epoch uint64) (*tree.Tree, error) {
	ctx, cancel := context.WithTimeout(ctx, handoverPatience)
	defer cancel()
	for {
		t, _, err := readTree(ctx, dir)
		if err == nil && t.Epoch > epoch {
			return t, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("nobody did within %s; 'dynast tree' shows how things stand", handoverPatience)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// ask makes one request to whoever leads. A leader that is just being replaced
// is waited for; what it refuses is told in its words.
func ask(ctx context.Context, dir *datadir.Dir, f func(context.Context, *admin) error) error {
	var refused error
	err := withLeader(ctx, dir, takeoverPatience, func(ctx context.Context, a *admin) error {
		err := f(ctx, a)
		switch status.Code(err) {
		case codes.FailedPrecondition, codes.InvalidArgument, codes.NotFound, codes.PermissionDenied, codes.Unimplemented:
			refused = &Error{Code: core.ExitError, Err: fmt.Errorf("refused: %s", withoutPrefix(status.Convert(err).Message()))}
			return nil
		}
		return err
	})
	if err == nil {
		err = refused
	}
	return err
}

// askOnce is ask for what must not be done twice: a leader that ends in the
// middle may have done it.
func askOnce(ctx context.Context, dir *datadir.Dir, f func(context.Context, *admin) error) error {
	t, _, err := readTree(ctx, dir)
	if err != nil {
		return err
	}
	tried := false
	return ask(ctx, dir, func(ctx context.Context, a *admin) error {
		if tried {
			return status.Errorf(codes.FailedPrecondition, "the leader %s ended in the middle: 'dynast tree' shows whether it was done", t.Leader)
		}
		tried = true
		return f(ctx, a)
	})
}

func withoutPrefix(message string) string {
	const prefix = "dynast: "
	if len(message) > len(prefix) && message[:len(prefix)] == prefix {
		return message[len(prefix):]
	}
	return message
}

// Scale changes how many followers are kept, to n or, if relative, by n.
func Scale(ctx context.Context, dataDir string, n int, relative bool, out io.Writer) error {
	dir, err := openDir(dataDir)
	if err != nil {
		return err
	}
	var answer *wire.ScaleResponse
	request := func(ctx context.Context, a *admin) (err error) {
		answer, err = a.Scale(ctx, &wire.ScaleRequest{Followers: int32(n), Relative: relative})
		return err
	}
	if relative {
		err = askOnce(ctx, dir, request)
	} else {
		err = ask(ctx, dir, request)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%d followers are kept; %d were\n", answer.Followers, answer.Before)
	return err
}

// Remove retires a member and returns when its process is gone.
func Remove(ctx context.Context, dataDir string, address roster.Address, out io.Writer) error {
	dir, err := openDir(dataDir)
	if err != nil {
		return err
	}
	var answer *wire.RemoveResponse
	err = ask(ctx, dir, func(ctx context.Context, a *admin) (err error) {
		answer, err = a.Remove(ctx, &wire.RemoveRequest{Address: address.String()})
		return err
	})
	if err != nil {
		return err
	}
	gone, err := wire.ToMember(answer.Member)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, handoverPatience)
	defer cancel()
	for alive(proc.Identity{PID: gone.PID, StartTime: gone.StartTime}) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s was told to leave and is still there after %s", gone.ID, handoverPatience)
		case <-time.After(5 * time.Millisecond):
		}
	}
	_, err = fmt.Fprintf(out, "%s is gone\n", gone.ID)
	return err
}
