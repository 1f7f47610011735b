package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/shared/operator/hostsview"
	"github.com/dynast-io/dynast/shared/operator/term"
	"github.com/dynast-io/dynast/shared/rules/core"
)

func (a *App) hostsLeaveCommand() *cobra.Command {
	var q hosts.LeaveRequest
	var asJSON bool
	cmd := &cobra.Command{Use: "leave", Short: "Take this host out of the cluster, or go back to one host", Args: cobra.NoArgs,
		Long: "Without --last the other hosts go on, and this host serves no clients any more. With --last, the last host goes back to a\n" +
			"single host's store. Keys, revisions, leases, users and roles are kept, and clients keep their address. Writes pause for the\n" +
			"switch. If it fails, everything is as before; if it is interrupted, repeat it."}
	cmd.Flags().BoolVar(&q.Last, "last", false, "go back to a single host and keep the data; this host must be the last one")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	c := a.WithCluster(cmd)
	c.run(cmd, func(ctx context.Context, cfg *config.Config, _ []string) error {
		r, err := leave(ctx, cfg.DataDir, q)
		if err != nil {
			return err
		}
		if asJSON {
			return json.NewEncoder(os.Stdout).Encode(r)
		}
		return writeLeave(os.Stdout, r, q.Last, cfg.DataDir)
	})
	return cmd
}

const (
	// leaveTries is how often a request is sent to a leader that exits before it answers.
	leaveTries = 5
	// leavePause is how often a command asks whether the new leader serves, and leavePatience how
	// long that may take after the copy is complete.
	leavePause    = 50 * time.Millisecond
	leavePatience = 10 * time.Minute
	// deadPatience is how long no leader may be alive. The new one is the same process as the old
	// one, which executes its program again.
	deadPatience = 3 * time.Second
)

// leaderLives reports whether the process lives that has or had cluster.lock.
func leaderLives(dataDir string) bool {
	dir, err := datadir.OpenForReading(dataDir)
	if err != nil {
		return false
	}
	owner, err := proc.ReadOwner(dir.ClusterLock())
	if err != nil {
		return false
	}
	id, err := proc.Identify(owner.Identity.PID)
	return err == nil && id == owner.Identity
}

// leave sends the request. On the way to a single host the leader is replaced, so leave asks until the
// new one answers.
func leave(ctx context.Context, dataDir string, q hosts.LeaveRequest) (*hosts.LeaveResponse, error) {
	var r hosts.LeaveResponse
	for try := 1; ; try++ {
		err := askHosts(ctx, dataDir, hosts.PathLeave, q, &r, switchTimeout)
		if err == nil && r.Done {
			return &r, nil
		}
		if err == nil {
			break
		}
		// A leader that hands over does not answer. The next one goes back to the beginning.
		if errors.Is(err, errRefused) || errors.Is(err, os.ErrNotExist) || try == leaveTries {
			return nil, err
		}
		select {
		case <-time.After(leavePause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	q.Wait = true
	alive := time.Now()
	for deadline := time.Now().Add(leavePatience); ; {
		select {
		case <-time.After(leavePause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		var now hosts.LeaveResponse
		err := askHosts(ctx, dataDir, hosts.PathLeave, q, &now, lookTimeout)
		switch {
		case err == nil && now.Done:
			now.Address = r.Address
			return &now, nil
		case errors.Is(err, errRefused):
			return nil, err
		case leaderLives(dataDir):
			alive = time.Now()
		}
		if now := time.Now(); now.After(deadline) || now.Sub(alive) > deadPatience {
			return nil, &Error{Code: core.ExitError, Err: errors.Join(fmt.Errorf("the store is copied, but no leader answers on %s: 'dynast up' goes on with the switch; nothing is lost", dataDir), err)}
		}
	}
}

func writeLeave(out io.Writer, r *hosts.LeaveResponse, last bool, dataDir string) error {
	var err error
	if last {
		_, err = fmt.Fprintf(out, `This host is a single host again, with %s up to revision %d; writes paused for %s.
If the configuration has a hosts block, remove its join and token_file.
`, config.Bytes(r.Bytes), r.Revision, r.Paused.Round(time.Millisecond))
		return err
	}
	_, err = fmt.Fprintf(out, `%s (%s) has left the cluster; clients that connect here are refused. Its data is still in %s.

To end this host:
  dynast stop
To let it join again, as an empty host:
  dynast stop
  mv %s %s.old
  dynast up --join IP:PORT --token-file token
`, r.Name, r.Address, dataDir, dataDir, strings.TrimRight(dataDir, "/"))
	return err
}

func (a *App) hostsRecoverCommand() *cobra.Command {
	var q hosts.RecoverRequest
	var asJSON, yes bool
	cmd := &cobra.Command{Use: "recover", Short: "Form a new cluster of this host, after the loss of most hosts", Args: cobra.NoArgs,
		Long: "Run it on the host whose copy ends last. It first shows where the copy of this host ends and what may be missing, and\n" +
			"asks. It is refused as long as a majority answers. The hosts of the old cluster can never rejoin by mistake: each has to be\n" +
			"emptied and to join again."}
	cmd.Flags().BoolVar(&q.DryRun, "dry-run", false, "only show what would happen")
	cmd.Flags().BoolVar(&q.Force, "force", false, "also discard a longer copy on another host")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	c := a.WithCluster(cmd)
	c.run(cmd, func(ctx context.Context, cfg *config.Config, _ []string) error {
		return recoverHost(ctx, cfg.DataDir, q, recoverOptions{yes: yes, json: asJSON, terminal: term.IsTerminal(os.Stdin) && term.IsTerminal(os.Stdout)}, os.Stdin, os.Stdout)
	})
	return cmd
}

type recoverOptions struct{ yes, json, terminal bool }

func recoverHost(ctx context.Context, dataDir string, q hosts.RecoverRequest, o recoverOptions, in io.Reader, out io.Writer) error {
	look := q
	look.DryRun = true
	var r hosts.Recovery
	if err := askHosts(ctx, dataDir, hosts.PathRecover, look, &r, changeTimeout+engineWait); err != nil {
		return err
	}
	done := r.NewCluster != ""
	ends := q.DryRun || done || r.Refused != "" || !o.yes && !o.terminal
	if o.json && ends {
		if err := json.NewEncoder(out).Encode(&r); err != nil {
			return err
		}
	}
	if !o.json {
		if err := hostsview.WriteRecovery(out, &r, time.Now()); err != nil {
			return err
		}
	}
	switch {
	case r.Refused != "":
		return &Error{Code: core.ExitError, Err: errors.New(r.Refused)}
	case q.DryRun || done:
		return nil
	case !o.yes && !o.terminal:
		return &Error{Code: core.ExitError, Err: errors.New("nothing was changed: standard input is not a terminal, so nobody can be asked; pass --yes to form the new cluster")}
	case !o.yes:
		_, _ = fmt.Fprint(out, "\nForm a new cluster of this host alone? Type yes: ")
		line, err := bufio.NewReader(in).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if strings.TrimSpace(line) != "yes" {
			return &Error{Code: core.ExitError, Err: errors.New("nothing was changed")}
		}
	}
	q.DryRun = false
	if err := askHosts(ctx, dataDir, hosts.PathRecover, q, &r, changeTimeout+engineWait); err != nil {
		return err
	}
	if o.json {
		return json.NewEncoder(out).Encode(&r)
	}
	_, err := fmt.Fprintf(out, `
%s is the first host of the new cluster %s, from revision %d on.
The tokens of the old cluster are not valid any more. Add two more hosts; each starts with an empty data directory:
  dynast hosts token > token                           # here
  dynast up --join %s --token-file token      # on each of them
`, r.Name, r.NewCluster, r.Revision, r.Address)
	return err
}

// engineWait is how long the leader waits for the engine in addition.
const engineWait = 30 * time.Second
