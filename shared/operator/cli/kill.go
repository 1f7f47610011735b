package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/observe/tree"
	"github.com/dynast-io/dynast/shared/rules/core"
)

// The members that 'dynast kill' knows by their roles. An address names any other one.
const (
	killLeader = "leader"
	killHeir   = "heir"
)

func (a *App) killCommand() *cobra.Command {
	w := waiting{action: member.ActionKill}
	cmd := &cobra.Command{
		Use:   "kill leader|heir|ADDRESS|NAME[/N]...",
		Short: "Kill a member of dynast, or services, to see how they recover",
		Long: "It sends SIGKILL. A killed leader is succeeded by the heir, and the leader replaces a killed follower. No\n" +
			"acknowledged write is lost. Of a service it kills all processes; they start again as after a crash.\n\n" +
			"A member is named by its role or by its address, which 'dynast tree' shows.",
		Args: cobra.MinimumNArgs(1),
	}
	w.bind(cmd)
	c := a.WithCluster(cmd)
	cmd.ValidArgsFunction = c.completeKill
	c.run(cmd, func(ctx context.Context, cfg *config.Config, names []string) error {
		if !slices.ContainsFunc(names, isMember) {
			return Act(ctx, cfg.DataDir, &wire.ActRequest{Action: string(w.action), Names: names}, w, os.Stdout)
		}
		if len(names) > 1 {
			return &Error{Code: ExitUsage, Err: errors.New("kill: a member is killed alone: give one address, or leader, or heir")}
		}
		dir, err := openDir(cfg.DataDir)
		if err != nil {
			return err
		}
		k, err := kill(ctx, dir, names[0], w.timeout)
		if err != nil {
			return err
		}
		return printResult(os.Stdout, w.json, k)
	})
	return cmd
}

// isMember reports whether a name is that of a member, and not of a service. No service has a colon
// in its name. One that is called leader or heir can be named by its instances.
func isMember(name string) bool {
	return name == killLeader || name == killHeir || strings.Contains(name, ":")
}

// killed is the result of 'dynast kill' for a member.
type killed struct {
	Schema  int    `json:"schema"`
	Address string `json:"address"`
	Role    string `json:"role"`
	PID     int    `json:"pid"`
	// Leader and Epoch are those after it. They are left out if the command did not wait.
	Leader string `json:"leader,omitempty"`
	Epoch  uint64 `json:"epoch,omitempty"`
}

// Render prints which process was killed, and who leads now.
func (k *killed) Render(out io.Writer) error {
	after := ""
	switch {
	case k.Leader == "":
	case k.Role == killLeader:
		after = fmt.Sprintf("; %s leads in epoch %d", k.Leader, k.Epoch)
	default:
		after = "; it is replaced"
	}
	_, err := fmt.Fprintf(out, "killed the %s %s (pid %d)%s\n", k.Role, k.Address, k.PID, after)
	return err
}

// killMember kills a member, which is named by its address or as leader or heir. It asks the leader for
// the pid first, so that it does not kill another process that got the pid later. It also returns the
// cluster as it was before.
func killMember(ctx context.Context, dir *datadir.Dir, who string) (tree.Member, *tree.Tree, error) {
	t, _, err := readTree(ctx, dir)
	if err != nil {
		return tree.Member{}, nil, err
	}
	address := who
	switch who {
	case killLeader:
		address = t.Leader
	case killHeir:
		address = t.Heir
	}
	m, ok := t.MemberAt(address)
	switch {
	case ok:
	case who == killHeir:
		return m, t, &Error{Code: core.ExitError, Err: errors.New("kill: there is no heir at the moment: no follower is in sync")}
	default:
		return m, t, &Error{Code: core.ExitError, Err: fmt.Errorf("kill: there is no member %s; 'dynast tree' shows the members", who)}
	}
	id, err := proc.Identify(m.PID)
	if err == nil {
		err = proc.Signal(id, unix.SIGKILL)
	}
	if errors.Is(err, unix.EPERM) {
		err = &Error{Code: core.ExitError, Err: fmt.Errorf("permission denied: only the user who runs the cluster%s and root may kill %s", owner(dir), address)}
	}
	return m, t, err
}

// kill kills a member and waits until the cluster is as complete as before, at most for patience.
func kill(ctx context.Context, dir *datadir.Dir, who string, patience time.Duration) (*killed, error) {
	m, before, err := killMember(ctx, dir, who)
	if err != nil {
		return nil, err
	}
	k := &killed{Schema: resultSchema, Address: m.Address, Role: m.Role, PID: m.PID}
	if patience == 0 {
		return k, nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		t, _, err := readTree(ctx, dir)
		if err == nil && recovered(before, t, m) {
			k.Leader, k.Epoch = t.Leader, t.Epoch
			return k, nil
		}
		if err != nil && deserted(dir) {
			return nil, fmt.Errorf("killed the %s %s (pid %d), and nobody is left to take over: %w", m.Role, m.Address, m.PID, err)
		}
		select {
		case <-time.After(pollServices):
		case <-ctx.Done():
			return nil, &Error{Code: core.ExitError, Err: fmt.Errorf("killed the %s %s (pid %d), but the cluster is not complete again after %s; 'dynast tree' shows its state", m.Role, m.Address, m.PID, patience)}
		}
	}
}

// recovered reports whether a cluster has no trace of a killed member, and as many followers in sync as
// before.
func recovered(before, now *tree.Tree, dead tree.Member) bool {
	still := slices.ContainsFunc(now.Members, func(m tree.Member) bool { return m.PID == dead.PID && m.Address == dead.Address })
	return !still && now.InSync() >= before.InSync() && (dead.Address != before.Leader || now.Epoch > before.Epoch)
}

// completeKill completes the names of members and services.
func (c *Configured) completeKill(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	services, directive := c.completeService(cmd, args, word)
	if len(args) > 0 {
		return services, directive
	}
	members, _ := c.completeMember(cmd, args, word)
	return slices.Concat([]string{killLeader, killHeir}, members, services), directive
}
