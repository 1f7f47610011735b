// Command dynast is a self-healing key-value store on one host. It runs a leader and
// its followers. No acknowledged write is lost when any of them is killed. See README.md.
//
// This file holds the commands that run a member. It also connects the worker with the
// supervisor, because neither package imports the other.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/parent"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/observe/logging"
	"github.com/dynast-io/dynast/shared/operator/cli"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/supervisor"
	"github.com/dynast-io/dynast/supervisor/engine"
	"github.com/dynast-io/dynast/supervisor/hosts"
	"github.com/dynast-io/dynast/supervisor/services"
	"github.com/dynast-io/dynast/worker"
)

// defaults is the built-in configuration, which is the file config.hcl of this repository.
//
//go:embed config.hcl
var defaults []byte

// version is set by the linker in release builds.
var version = ""

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := execute(ctx, newRoot())
	stop()
	os.Exit(int(code))
}

func execute(ctx context.Context, root *cobra.Command) core.ExitCode {
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return core.ExitDone
	}
	var coded *cli.Error
	if errors.As(err, &coded) {
		if coded.Err != nil {
			fmt.Fprintln(member.Stderr, "dynast:", coded.Err)
		}
		return coded.Code
	}
	fmt.Fprintln(member.Stderr, "dynast:", err)
	fmt.Fprintf(member.Stderr, "Try '%s --help'.\n", cmd.CommandPath())
	return cli.ExitUsage
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "dynast",
		Short: "A key-value store that keeps serving when any of its processes is killed",
		Long: "A replicated key-value store with etcd's API, and a supervisor of programs, for one host or several. It keeps\n" +
			"serving when any of its processes is killed. 'dynast up' starts it.",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	revision, time := source()
	app := &cli.App{Defaults: defaults, Version: buildVersion(), Commit: revision, Date: time}
	root.AddCommand(upCommand(app), joinCommand(app), workerCommand(), engineCommand(), backCommand())
	root.AddCommand(app.Commands()...)
	app.Describe(root)
	cli.Strict(root)
	return root
}

// run runs a member and turns its result into an exit code.
func run(cfg *config.Config, address string, f func(worker.Options) (core.ExitCode, error)) error {
	logs, err := logging.New(logging.Options{
		Level: cfg.Log.Level, Format: cfg.Log.Format, Directory: cfg.LogDirectory(),
		MaxSizeBytes: int64(cfg.Log.MaxSize), MaxBackups: cfg.Log.MaxBackups,
		Address: address, Stderr: logOutput(cfg),
	})
	if err != nil {
		return &cli.Error{Code: core.ExitError, Err: err}
	}
	code, err := f(worker.Options{Config: cfg, Version: buildVersion(), NewSupervisor: supervisor.New, NewServices: services.New, Engine: engine.Service, Join: hosts.Join, Logs: logs, Reload: reload})
	if err == nil && code == core.ExitDone {
		logs.Flush(time.Second)
		return nil
	}
	// An error is reported once. A person at a terminal gets a plain message; a spawned member
	// and a member with a structured or a file log get a log line instead.
	spawned := os.Getenv(member.ConfigEnv) != ""
	if err != nil && (spawned || cfg.Log.Format == "json" || cfg.Log.Directory != "" && cfg.Log.Directory != config.Off) {
		logs.Logger("worker").Error("cannot start", "error", err)
		if logOutput(cfg) != nil {
			err = nil
		}
	}
	logs.Flush(time.Second)
	return &cli.Error{Code: max(code, core.ExitError), Err: err}
}

// logOutput returns the log's output besides the files: standard error, or nil if another process
// shows the events there and there are files.
func logOutput(cfg *config.Config) io.Writer {
	if os.Getenv(member.QuietEnv) != "" && cfg.LogDirectory() != "" {
		return nil
	}
	return member.Stderr
}

// runAgain runs the leader if this process has executed its program again. Its arguments are then
// those of its first life, and mean nothing.
func runAgain() (bool, error) {
	sockets, again, err := member.PassedOn()
	if !again {
		return false, nil
	}
	if err != nil {
		return true, &cli.Error{Code: core.ExitError, Err: err}
	}
	cfg, err := config.Decode([]byte(os.Getenv(member.ConfigEnv)))
	if err != nil {
		return true, &cli.Error{Code: core.ExitError, Err: fmt.Errorf("invalid configuration of the leader before: %w", err)}
	}
	return true, run(cfg, "", func(o worker.Options) (core.ExitCode, error) {
		o.Again, o.Sockets = true, sockets
		return worker.Up(o)
	})
}

// reload reads the configuration again from the source that the first leader used.
func reload() (*config.Config, string, error) {
	source, err := config.ParseSource(os.Getenv(member.SourceEnv))
	if err != nil {
		return nil, "", err
	}
	cfg, err := source.Load(defaults)
	if source.File == "" {
		source.File = config.DefaultName
	}
	return cfg, source.File, err
}

func upCommand(app *cli.App) *cobra.Command {
	cmd := &cobra.Command{Use: "up", Short: "Start a cluster: a leader, which then starts its followers", Args: cobra.NoArgs}
	var readyFile string
	cmd.Flags().StringVar(&readyFile, "ready-file", "", "`FILE` that each leader writes when it starts to serve clients; it is removed when the cluster stops")
	var join, tokenFile string
	cmd.Flags().StringVar(&join, "join", "", "`IP:PORT` of a host whose cluster this host joins; short for --hosts-join")
	cmd.Flags().StringVar(&tokenFile, "token-file", "", "`FILE` with the token that admits this host; short for --hosts-token-file")
	c := app.WithConfig(cmd)
	cmd.PreRunE = func(*cobra.Command, []string) error {
		for flag, value := range map[string]string{"hosts-join": join, "hosts-token-file": tokenFile} {
			if value != "" {
				if err := cmd.Flags().Set(flag, value); err != nil {
					return err
				}
			}
		}
		return nil
	}
	attach := attachFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		if again, err := runAgain(); again {
			return err
		}
		attached, err := attach()
		if err != nil {
			return err
		}
		if !parent.InContainer() && !attached {
			proc.SlackTimers()
		}
		cfg, err := c.Load()
		if err != nil {
			return err
		}
		if err := os.Setenv(member.SourceEnv, c.Source(cfg).String()); err != nil {
			return err
		}
		if err := announceIn(readyFile); err != nil {
			return err
		}
		switch {
		case parent.InContainer():
			return ended(parent.Run(parent.Options{
				Argv: os.Args, Leader: parent.LeaderOf(cfg.DataDir), Members: parent.MembersHere, Container: true}))
		case attached:
			return stayAttached(cfg, c.Location(), reach(cmd, cfg))
		}
		return run(cfg, "", func(o worker.Options) (core.ExitCode, error) {
			o.ConfiguredBy = c.Location().String()
			return worker.Up(o)
		})
	}
	return cmd
}

// ended turns the result of a parent process into an error with the exit code.
func ended(code int, err error) error {
	if code == 0 && err == nil {
		return nil
	}
	return &cli.Error{Code: core.ExitCode(code), Err: err}
}

// announceIn makes this leader and all later ones write a file when they start to serve.
func announceIn(readyFile string) error {
	if readyFile == "" {
		return os.Unsetenv(member.ReadyFileEnv) // it may come from another cluster that started this one
	}
	path, err := filepath.Abs(readyFile)
	if err != nil {
		return &cli.Error{Code: core.ExitError, Err: fmt.Errorf("--ready-file: %w", err)}
	}
	return os.Setenv(member.ReadyFileEnv, path)
}

func joinCommand(app *cli.App) *cobra.Command {
	var leader, address string
	cmd := &cobra.Command{Use: "join --leader HOST:PORT", Short: "Start an additional follower by hand", Args: cobra.NoArgs}
	cmd.Flags().StringVar(&leader, "leader", "", "member address `HOST:PORT` of the leader; 'dynast tree' shows it")
	cmd.Flags().StringVar(&address, "address", "", "member address `HOST:PORT` of the new follower; default: the next free port")
	// All other fields are those of the leader.
	c := app.WithCluster(cmd, "member.host", "log.level", "log.format", "log.directory", "log.max_size", "log.max_backups")
	cmd.RunE = func(*cobra.Command, []string) error {
		if again, err := runAgain(); again {
			return err
		}
		proc.SlackTimers()
		cfg, err := c.Load()
		if err != nil {
			return err
		}
		var args worker.JoinArgs
		if leader == "" {
			return errors.New("join: --leader is missing: pass the member address of the leader, which 'dynast tree' shows")
		}
		if args.Leader, err = roster.ParseAddress(leader); err != nil {
			return fmt.Errorf("join: --leader: %w", err)
		}
		if address != "" {
			if args.Address, err = roster.ParseAddress(address); err != nil {
				return fmt.Errorf("join: --address: %w", err)
			}
			cfg.Member.Host = args.Address.Addr().String()
		}
		return run(cfg, address, func(o worker.Options) (core.ExitCode, error) { return worker.Join(o, args) })
	}
	return cmd
}

// workerCommand is the command with which a leader starts its followers.
func workerCommand() *cobra.Command {
	var address, dataDir string
	var slot int
	cmd := &cobra.Command{Use: "worker", Hidden: true, Args: cobra.NoArgs}
	cmd.Flags().StringVar(&address, "address", "", "member address of this worker")
	cmd.Flags().StringVar(&dataDir, "data-dir", "", "data directory; operators and 'dynast stop' recognize the process by it")
	cmd.Flags().IntVar(&slot, "slot", 0, "number of its slot in the data directory")
	cmd.RunE = func(*cobra.Command, []string) error {
		if again, err := runAgain(); again {
			return err
		}
		proc.SlackTimers() // inherited from the leader, unless the leader is an older build
		if os.Getenv(member.ConfigEnv) == "" {
			return errors.New("worker: only a leader can run this command: use 'dynast join' to start a follower by hand")
		}
		a, err := roster.ParseAddress(address)
		if err != nil {
			return err
		}
		cfg, err := config.Decode([]byte(os.Getenv(member.ConfigEnv)))
		if err != nil {
			return &cli.Error{Code: cli.ExitUsage, Err: fmt.Errorf("worker: invalid configuration from the leader: %w", err)}
		}
		return run(cfg, address, func(o worker.Options) (core.ExitCode, error) {
			return worker.Spawned(o, worker.SpawnedArgs{Address: a, Slot: slot})
		})
	}
	return cmd
}

// engineCommand is the command with which a leader starts the store of its host in a cluster of
// several hosts.
func engineCommand() *cobra.Command {
	var dataDir string
	cmd := &cobra.Command{Use: "engine", Hidden: true, Args: cobra.NoArgs}
	cmd.Flags().StringVar(&dataDir, "data-dir", "", "data directory of the host")
	cmd.RunE = func(*cobra.Command, []string) error {
		proc.SlackTimers()
		if err := engine.Run(dataDir, buildVersion()); err != nil {
			return &cli.Error{Code: core.ExitError, Err: err}
		}
		return nil
	}
	return cmd
}

// backCommand is the command with which a leader makes the store of a single host from the engine's
// data.
func backCommand() *cobra.Command {
	var dataDir string
	cmd := &cobra.Command{Use: "back", Hidden: true, Args: cobra.NoArgs}
	cmd.Flags().StringVar(&dataDir, "data-dir", "", "data directory of the host")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		left, err := hosts.Back(cmd.Context(), dataDir, nil)
		if err != nil {
			return &cli.Error{Code: core.ExitError, Err: err}
		}
		return json.NewEncoder(os.Stdout).Encode(left)
	}
	return cmd
}

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
