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

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/observe/tree"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

// handoverPatience is how long a command waits for a successor to become leader. The old leader
// finishes its pending requests first, and one of them may take long.
const handoverPatience = 30 * time.Second

// onCluster makes a command that sends a request to the current leader of the cluster in a data
// directory, and prints the result.
func (a *App) onCluster(use, short string, args cobra.PositionalArgs, do func(ctx context.Context, dataDir string, args []string) (rendered, error)) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: args}
	asJSON := jsonFlag(cmd)
	c := a.WithCluster(cmd)
	if strings.Contains(use, "ADDRESS") {
		cmd.ValidArgsFunction = c.completeMember
	}
	c.run(cmd, func(ctx context.Context, cfg *config.Config, args []string) error {
		r, err := do(ctx, cfg.DataDir, args)
		if err != nil {
			return err
		}
		return printResult(os.Stdout, *asJSON, r)
	})
	return cmd
}

func (a *App) promoteCommand() *cobra.Command {
	return a.onCluster("promote [ADDRESS|HOST]", "Hand the leadership to the heir, to a follower, or to a host", cobra.MaximumNArgs(1),
		func(ctx context.Context, dataDir string, args []string) (rendered, error) {
			if len(args) == 1 && config.CheckHostName(args[0]) == nil {
				return promoteHost(ctx, dataDir, args[0])
			}
			to, err := addressArgument(args)
			if err != nil {
				return nil, err
			}
			return promote(ctx, dataDir, to)
		})
}

func (a *App) removeCommand() *cobra.Command {
	return a.onCluster("remove ADDRESS", "Stop a member; the leader replaces it if too few are left", cobra.ExactArgs(1),
		func(ctx context.Context, dataDir string, args []string) (rendered, error) {
			address, err := addressArgument(args)
			if err != nil {
				return nil, err
			}
			return remove(ctx, dataDir, address)
		})
}

func (a *App) addCommand() *cobra.Command {
	return a.onCluster("add", "Add a follower; later leaders keep the new number", cobra.NoArgs,
		func(ctx context.Context, dataDir string, _ []string) (rendered, error) {
			return scale(ctx, dataDir, 1, true)
		})
}

func (a *App) scaleCommand() *cobra.Command {
	return a.onCluster("scale N", "Set the number of followers to N; later leaders keep that number", cobra.ExactArgs(1),
		func(ctx context.Context, dataDir string, args []string) (rendered, error) {
			n, err := strconv.Atoi(args[0])
			if err != nil || n < 0 || n > core.MaxFollowers {
				return nil, &Error{Code: ExitUsage, Err: fmt.Errorf("scale: invalid follower count %s: must be between 0 and %d", args[0], core.MaxFollowers)}
			}
			return scale(ctx, dataDir, n, false)
		})
}

func addressArgument(args []string) (roster.Address, error) {
	if len(args) == 0 {
		return roster.Address{}, nil
	}
	a, err := roster.ParseAddress(args[0])
	if err != nil {
		return a, &Error{Code: ExitUsage, Err: fmt.Errorf("%w: 'dynast tree' shows the member addresses", err)}
	}
	return a, nil
}

// promoted is the result of 'dynast promote'.
type promoted struct {
	Schema int    `json:"schema"`
	Before string `json:"before"` // the leader before
	Leader string `json:"leader"`
	Epoch  uint64 `json:"epoch"`
	// Successor is the follower that was asked to lead. If it failed, another one leads.
	Successor string  `json:"successor"`
	Seconds   float64 `json:"seconds"`
}

// Render prints the new leader.
func (p *promoted) Render(out io.Writer) (err error) {
	if p.Leader != p.Successor {
		_, err = fmt.Fprintf(out, "%s leads in epoch %d, after %s: the successor %s failed to take over\n", p.Leader, p.Epoch, p.Before, p.Successor)
		return err
	}
	took := time.Duration(p.Seconds * float64(time.Second)).Round(time.Millisecond)
	_, err = fmt.Fprintf(out, "%s leads in epoch %d, after %s; it took %s\n", p.Leader, p.Epoch, p.Before, took)
	return err
}

// Promote hands the leadership over and returns when the successor serves clients.
func Promote(ctx context.Context, dataDir string, to roster.Address, out io.Writer) error {
	p, err := promote(ctx, dataDir, to)
	if err != nil {
		return err
	}
	return p.Render(out)
}

func promote(ctx context.Context, dataDir string, to roster.Address) (*promoted, error) {
	dir, before, _, err := openTree(ctx, dataDir)
	if err != nil {
		return nil, err
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
		return nil, err
	}
	began := time.Now()
	after, err := ledAfter(ctx, dir, before.Epoch)
	if err != nil {
		return nil, fmt.Errorf("hand-over from %s to %s: %w", before.Leader, answer.Address, err)
	}
	return &promoted{resultSchema, before.Leader, after.Leader, after.Epoch, answer.Address, time.Since(began).Seconds()}, nil
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
			return nil, fmt.Errorf("no member became leader within %s: 'dynast tree' shows the state of the cluster", handoverPatience)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// ask sends one request to the current leader. During a takeover it waits for the new leader. A
// refusal is reported in the words of the leader.
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

// askOnce is like ask, but for a request that must not be carried out twice. It does not retry,
// because a leader that exits before its answer may have carried out the request.
func askOnce(ctx context.Context, dir *datadir.Dir, f func(context.Context, *admin) error) error {
	t, _, err := readTree(ctx, dir)
	if err != nil {
		return err
	}
	tried := false
	return ask(ctx, dir, func(ctx context.Context, a *admin) error {
		if tried {
			return status.Errorf(codes.FailedPrecondition, "the leader %s exited before it answered: 'dynast tree' shows whether the request was carried out", t.Leader)
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

// scaled is the result of 'dynast add' and 'dynast scale'.
type scaled struct {
	Schema    int    `json:"schema"`
	Before    uint32 `json:"before"`
	Followers uint32 `json:"followers"`
}

// Render prints the numbers of followers.
func (s *scaled) Render(out io.Writer) error {
	_, err := fmt.Fprintf(out, "followers: %d -> %d\n", s.Before, s.Followers)
	return err
}

// scale sets the number of followers to n or, if relative, changes it by n.
func scale(ctx context.Context, dataDir string, n int, relative bool) (*scaled, error) {
	dir, err := openDir(dataDir)
	if err != nil {
		return nil, err
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
		return nil, err
	}
	return &scaled{resultSchema, answer.Before, answer.Followers}, nil
}

// removed is the result of 'dynast remove'.
type removed struct {
	Schema  int    `json:"schema"`
	Address string `json:"address"`
	PID     int    `json:"pid"`
	id      roster.ID
}

// Render prints which member is gone.
func (r *removed) Render(out io.Writer) error {
	_, err := fmt.Fprintf(out, "%s is gone\n", r.id)
	return err
}

// remove retires a member and returns when its process is gone.
func remove(ctx context.Context, dataDir string, address roster.Address) (*removed, error) {
	dir, err := openDir(dataDir)
	if err != nil {
		return nil, err
	}
	var answer *wire.RemoveResponse
	err = ask(ctx, dir, func(ctx context.Context, a *admin) (err error) {
		answer, err = a.Remove(ctx, &wire.RemoveRequest{Address: address.String()})
		return err
	})
	if err != nil {
		return nil, err
	}
	gone, err := wire.ToMember(answer.Member)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, handoverPatience)
	defer cancel()
	for alive(proc.Identity{PID: gone.PID, StartTime: gone.StartTime}) {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%s was told to exit, but still runs after %s: 'dynast tree' shows its state", gone.ID, handoverPatience)
		case <-time.After(5 * time.Millisecond):
		}
	}
	return &removed{resultSchema, gone.ID.Address.String(), gone.PID, gone.ID}, nil
}
