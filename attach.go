package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/parent"
	"github.com/dynast-io/dynast/shared/host/systemd"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/operator/cli"
	"github.com/dynast-io/dynast/shared/operator/term"
	"github.com/dynast-io/dynast/shared/operator/upview"
)

// attachFlag adds the flag --attach. The result reports whether this process stays as the parent of
// the cluster until the cluster ends.
func attachFlag(cmd *cobra.Command) func() (bool, error) {
	var attach bool
	cmd.Flags().BoolVar(&attach, "attach", false, "stay until the cluster ends, whichever process leads, and pass signals on to the leader; default: true on a terminal, otherwise false")
	return func() (bool, error) {
		below := os.Getenv(member.ParentEnv) == strconv.Itoa(os.Getppid())
		if !below {
			// They may come from another cluster that started this one.
			if err := errors.Join(os.Unsetenv(member.ParentEnv), os.Unsetenv(member.QuietEnv)); err != nil {
				return false, err
			}
		}
		managed := systemd.Managed() || os.Getenv("LISTEN_FDS") != ""
		switch given := cmd.Flags().Changed("attach"); {
		case below:
			return false, nil // this is the leader below the parent
		case given && attach && managed:
			return false, errors.New("up: --attach cannot be used under systemd (NOTIFY_SOCKET or LISTEN_FDS is set), because systemd itself follows the leader: leave the flag out")
		case given:
			return attach, nil
		}
		return !managed && term.IsTerminal(member.Stderr), nil
	}
}

// reach returns the flags with which other commands find a cluster that was started with cmd.
func reach(cmd *cobra.Command, cfg *config.Config) string {
	if !cmd.Flags().Changed("config") && !cmd.Flags().Changed("data-dir") {
		return ""
	}
	dir := cfg.DataDir
	if strings.ContainsAny(dir, " \t\n\"'\\$&;|<>()*?[]`!#~") {
		dir = "'" + strings.ReplaceAll(dir, "'", `'\''`) + "'"
	}
	return " --data-dir " + dir
}

// stayAttached runs the leader as a child and returns when the cluster has ended. On a terminal it
// shows what happens, in place of the members' logs.
func stayAttached(cfg *config.Config, at config.Location, reach string) error {
	if err := os.Setenv(member.ParentEnv, strconv.Itoa(os.Getpid())); err != nil {
		return err
	}
	o := parent.Options{Argv: os.Args, Leader: parent.LeaderOf(cfg.DataDir), Members: parent.MembersOf(cfg.DataDir)}
	kill := func(killing func([]string)) func() bool {
		return func() bool {
			killed, _ := cli.KillServices(context.Background(), cfg.DataDir, killing)
			return killed // otherwise the leader gets the signal
		}
	}
	if !term.IsTerminal(member.Stderr) {
		o.Hurry = kill(func([]string) {})
		return ended(parent.Run(o))
	}
	if err := os.Setenv(member.QuietEnv, "1"); err != nil {
		return err
	}
	// The terminal may close, or may forbid programs in the background to write.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	signal.Ignore(syscall.SIGTTOU)
	view := upview.New(upview.About{Version: buildVersion(), Source: at.String(), Config: cfg, Reach: reach, Brief: cfg.LogDirectory() == ""},
		term.StyleOf(member.Stderr), member.Stderr)
	ctx, cancel := context.WithCancel(context.Background())
	var follow sync.WaitGroup
	var followErr error
	follow.Go(func() { followErr = view.Follow(ctx) })
	o.Stopping, o.Hurry = view.Stopping, kill(view.Killing)
	code, err := parent.Run(o)
	cancel()
	follow.Wait()
	if followErr != nil {
		fmt.Fprintln(member.Stderr, "dynast: cannot show events:", followErr)
	}
	view.Ended(code)
	return ended(code, err)
}
