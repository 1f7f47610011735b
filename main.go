// Command dynast is a self-healing key-value store on one host: a leader, its
// followers, and nothing lost when any of them is killed. See README.md.
//
// This file is the command line and the wiring of the worker to the
// supervisor; neither imports the other.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/bench"
	"github.com/dynast-io/dynast/shared/cli"
	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/logging"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/roster"
	"github.com/dynast-io/dynast/supervisor"
	"github.com/dynast-io/dynast/worker"
)

// defaults is the built-in configuration: the file that this repository ships.
//
//go:embed config.hcl
var defaults []byte

// version is set by the linker in a release.
var version = ""

// exitUsage is for a command line that cannot be understood.
const exitUsage core.ExitCode = 2

func main() {
	cobra.EnablePrefixMatching = false // etcdctl's package turns it on
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := execute(ctx, newRoot())
	stop()
	os.Exit(int(code))
}

func execute(ctx context.Context, root *cobra.Command) core.ExitCode {
	err := root.ExecuteContext(ctx)
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
	fmt.Fprintln(member.Stderr, "Try 'dynast --help'.")
	return exitUsage
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "dynast",
		Short:         "A key-value store that survives the death of any of its processes",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(upCommand(), joinCommand(), workerCommand(), treeCommand(), stopCommand(), ctlCommand(), benchCommand(), versionCommand())
	for _, name := range []string{"put", "get", "del"} {
		root.AddCommand(ctlAlias(name))
	}
	return root
}

// configured is a command's access to the configuration: a file, or the
// built-in default, and the flags over it.
type configured struct {
	file  string
	flags *config.Flags
}

func withConfig(cmd *cobra.Command) *configured {
	c := &configured{}
	cmd.Flags().StringVar(&c.file, "config", "", "configuration `FILE`; without it the built-in default, which is config.hcl")
	c.flags = config.BindFlags(cmd.Flags())
	return c
}

func (c *configured) load() (*config.Config, error) {
	cfg, err := config.Load(c.file, defaults)
	if err == nil {
		err = c.flags.Apply(cfg)
	}
	if err != nil {
		return nil, &cli.Error{Code: exitUsage, Err: err}
	}
	return cfg, nil
}

// run runs a member and turns its end into an exit code.
func run(cfg *config.Config, address string, f func(worker.Options) (core.ExitCode, error)) error {
	logs, err := logging.New(logging.Options{
		Level: cfg.Log.Level, Format: cfg.Log.Format, Directory: cfg.Log.Directory,
		MaxSizeBytes: int64(cfg.Log.MaxSize), MaxBackups: cfg.Log.MaxBackups,
		Address: address, Stderr: member.Stderr,
	})
	if err != nil {
		return &cli.Error{Code: core.ExitError, Err: err}
	}
	code, err := f(worker.Options{Config: cfg, Version: buildVersion(), NewSupervisor: supervisor.New, Logs: logs})
	if err == nil && code == core.ExitDone {
		logs.Flush(time.Second)
		return nil
	}
	// Who typed the command is told in plain words, once; a log gets a line of its own.
	spawned := os.Getenv(member.ConfigEnv) != ""
	if err != nil && (spawned || cfg.Log.Format == "json" || cfg.Log.Directory != "") {
		logs.Logger("worker").Error("did not start", "error", err)
		err = nil
	}
	logs.Flush(time.Second)
	return &cli.Error{Code: max(code, core.ExitError), Err: err}
}

func upCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "up", Short: "Start a leader, which starts its followers", Args: cobra.NoArgs}
	c := withConfig(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		cfg, err := c.load()
		if err != nil {
			return err
		}
		return run(cfg, "", worker.Up)
	}
	return cmd
}

func joinCommand() *cobra.Command {
	var leader, address string
	cmd := &cobra.Command{Use: "join --leader HOST:PORT", Short: "Start one more follower by hand", Args: cobra.NoArgs}
	cmd.Flags().StringVar(&leader, "leader", "", "member address `HOST:PORT` of the leader, as 'dynast tree' shows it")
	cmd.Flags().StringVar(&address, "address", "", "own member address `HOST:PORT`; without it the next free port")
	c := withConfig(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		cfg, err := c.load()
		if err != nil {
			return err
		}
		var args worker.JoinArgs
		if leader == "" {
			return errors.New("join: --leader is missing")
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

// workerCommand is what a leader runs its followers with.
func workerCommand() *cobra.Command {
	var address, dataDir string
	var slot int
	cmd := &cobra.Command{Use: "worker", Hidden: true, Args: cobra.NoArgs}
	cmd.Flags().StringVar(&address, "address", "", "own member address")
	cmd.Flags().StringVar(&dataDir, "data-dir", "", "data directory, shown for operators")
	cmd.Flags().IntVar(&slot, "slot", 0, "slot")
	cmd.RunE = func(*cobra.Command, []string) error {
		if os.Getenv(member.ConfigEnv) == "" {
			return errors.New("a worker is started by its leader; 'dynast join' starts one by hand")
		}
		a, err := roster.ParseAddress(address)
		if err != nil {
			return err
		}
		cfg, err := config.Decode([]byte(os.Getenv(member.ConfigEnv)))
		if err != nil {
			return &cli.Error{Code: exitUsage, Err: fmt.Errorf("the configuration that the leader passed on: %w", err)}
		}
		return run(cfg, address, func(o worker.Options) (core.ExitCode, error) {
			return worker.Spawned(o, worker.SpawnedArgs{Address: a, Slot: slot})
		})
	}
	return cmd
}

func treeCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "tree", Short: "Show the processes of a running cluster", Args: cobra.NoArgs}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	c := withConfig(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := c.load()
		if err != nil {
			return err
		}
		return asError(cli.Tree(cmd.Context(), cfg.DataDir, asJSON, os.Stdout))
	}
	return cmd
}

func stopCommand() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{Use: "stop", Short: "Stop all processes of a running cluster", Args: cobra.NoArgs}
	cmd.Flags().DurationVar(&timeout, "timeout", 20*time.Second, "after this long, processes that are left are killed")
	c := withConfig(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := c.load()
		if err != nil {
			return err
		}
		return asError(cli.Stop(cmd.Context(), cfg.DataDir, timeout, os.Stdout))
	}
	return cmd
}

func ctlCommand() *cobra.Command {
	return &cobra.Command{
		Use:                "ctl COMMAND [ARGUMENT ...]",
		Short:              "Run one of etcdctl's own commands against this cluster",
		DisableFlagParsing: true,
		RunE:               func(_ *cobra.Command, args []string) error { return ctl(args) },
	}
}

func ctlAlias(name string) *cobra.Command {
	return &cobra.Command{
		Use:                name + " [ARGUMENT ...]",
		Short:              fmt.Sprintf("Short for 'dynast ctl %s'", name),
		DisableFlagParsing: true,
		RunE:               func(_ *cobra.Command, args []string) error { return ctl(append([]string{name}, args...)) },
	}
}

// ctl runs one of etcdctl's commands. Of this program's own flags it knows
// --data-dir and --config, by which it finds the cluster; all others are etcdctl's.
func ctl(args []string) error {
	args, dataDir := takeFlag(args, "--data-dir")
	args, file := takeFlag(args, "--config")
	cfg, err := config.Load(file, defaults)
	if err != nil {
		return &cli.Error{Code: exitUsage, Err: err}
	}
	if dataDir != "" {
		cfg.DataDir = dataDir
	}
	endpoint := cli.Endpoint(cfg.DataDir, cfg.Client.Listen)
	if cfg.Client.TLS() {
		endpoint = "https://" + endpoint
	}
	return asError(cli.Ctl(args, endpoint))
}

// takeFlag takes "NAME VALUE" or "NAME=VALUE" out of arguments.
func takeFlag(args []string, name string) (rest []string, value string) {
	for i := 0; i < len(args); i++ {
		switch {
		case args[i] == name && i+1 < len(args):
			value = args[i+1]
			i++
		case strings.HasPrefix(args[i], name+"="):
			value = args[i][len(name)+1:]
		default:
			rest = append(rest, args[i])
		}
	}
	return rest, value
}

func benchCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "bench", Short: "Measure a running cluster"}
	cmd.AddCommand(benchFailoverCommand())
	return cmd
}

func benchFailoverCommand() *cobra.Command {
	var kills int
	var asJSON, stop bool
	cmd := &cobra.Command{
		Use:   "failover",
		Short: "Kill the leader again and again under one writing client, and measure the gaps",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().IntVar(&kills, "kills", 100, "how often the leader is killed")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	cmd.Flags().BoolVar(&stop, "stop", false, "send SIGSTOP instead of SIGKILL: the leader hangs, and has to be found out")
	c := withConfig(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := c.load()
		if err != nil {
			return err
		}
		signal := unix.SIGKILL
		if stop {
			signal = unix.SIGSTOP
		}
		res, err := bench.Failover(cmd.Context(), bench.FailoverConfig{
			Endpoint: cli.Endpoint(cfg.DataDir, cfg.Client.Listen), Kills: kills,
			Find: cli.FindLeader(cfg.DataDir, cfg.Followers, signal), Settle: 30 * time.Second, Progress: os.Stderr,
		})
		if err != nil {
			return asError(err)
		}
		return printFailover(res, asJSON)
	}
	return cmd
}

func printFailover(res *bench.FailoverResult, asJSON bool) error {
	if asJSON {
		if err := json.NewEncoder(os.Stdout).Encode(res); err != nil {
			return err
		}
	} else {
		fmt.Printf("%d leader kills, %d acknowledged writes\n", res.Kills, res.Writes)
		fmt.Printf("gap between acknowledged writes: median %s  p99 %s  worst %s\n",
			res.Median.Round(10*time.Microsecond), res.P99.Round(10*time.Microsecond), res.Worst.Round(10*time.Microsecond))
		fmt.Printf("back to full strength: median %s\n", res.Refill.Round(time.Millisecond))
	}
	if len(res.Missing) > 0 {
		return &cli.Error{Code: core.ExitError, Err: fmt.Errorf("%d acknowledged writes are missing: %v", len(res.Missing), res.Missing)}
	}
	return nil
}

// asError gives an error of a command that was understood the exit code 1,
// unless it has its own.
func asError(err error) error {
	var coded *cli.Error
	if err == nil || errors.As(err, &coded) {
		return err
	}
	return &cli.Error{Code: core.ExitError, Err: err}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(*cobra.Command, []string) {
			fmt.Printf("dynast %s, %s %s/%s\n", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
		},
	}
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
