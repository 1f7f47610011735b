package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/operator/term"
	"github.com/dynast-io/dynast/shared/prove/bench"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

func (a *App) benchCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "bench", Short: "Measure a running cluster, or any server with the etcd API"}
	for _, w := range bench.Workloads {
		cmd.AddCommand(a.benchLoadCommand(w))
	}
	cmd.AddCommand(a.benchIdleCommand(), a.benchMemoryCommand(), a.benchFailoverCommand())
	return cmd
}

// benchTarget holds the flags that say where the servers are. Without any of them, the target
// is the cluster in the data directory of the configuration.
type benchTarget struct {
	*Configured
	parts     []targetPart
	endpoints []string
	pids      []int
	tls       transport.TLSInfo
	asJSON    bool
}

// benchTarget adds the flags of a measurement that needs the named parts: clients, processes or both.
func (a *App) benchTarget(cmd *cobra.Command, parts ...targetPart) *benchTarget {
	t := &benchTarget{parts: parts}
	f := cmd.Flags()
	if slices.Contains(parts, targetProcesses) {
		f.IntSliceVar(&t.pids, "pids", nil, "process ids of all servers, as `PID`,..., to measure their CPU, disk and memory use; default: the processes of the data directory")
	}
	if slices.Contains(parts, targetClients) {
		t.clientFlags(f)
	}
	f.BoolVar(&t.asJSON, "json", false, "print one JSON object")
	t.Configured = a.WithCluster(cmd)
	return t
}

// targetPart is a part of a cluster that a measurement needs.
type targetPart int

const (
	targetClients   targetPart = iota // the address for clients
	targetProcesses                   // the processes of the servers
)

func (t *benchTarget) clientFlags(f *pflag.FlagSet) {
	f.StringSliceVar(&t.endpoints, "endpoints", nil, "addresses of the servers, as `HOST:PORT`,...; default: the cluster of the data directory")
	f.StringVar(&t.tls.TrustedCAFile, "cacert", "", "CA of the server certificates (PEM); turns TLS on")
	f.StringVar(&t.tls.CertFile, "cert", "", "client certificate (PEM)")
	f.StringVar(&t.tls.KeyFile, "key", "", "private key of the client certificate (PEM)")
	f.BoolVar(&t.tls.InsecureSkipVerify, "insecure-skip-tls-verify", false, "use TLS, but do not verify the server certificates")
}

// resolve finds the servers. If --endpoints names them, the data directory is used only if
// --data-dir is given as well.
func (t *benchTarget) resolve(cmd *cobra.Command) (bench.Target, error) {
	out := bench.Target{Endpoints: t.endpoints, PIDs: t.pids}
	cfg, err := t.Load()
	if err != nil {
		return out, err
	}
	secure, err := t.clientTLS(cfg.Client.TLS() && len(t.endpoints) == 0)
	if err != nil {
		return out, &Error{Code: ExitUsage, Err: err}
	}
	out.TLS = secure
	if len(out.Endpoints) == 0 && slices.Contains(t.parts, targetClients) {
		endpoint, err := t.running(cmd.Context(), cfg)
		if err != nil {
			return out, err
		}
		out.Endpoints = []string{endpoint}
	}
	if len(out.PIDs) == 0 && (len(t.endpoints) == 0 || cmd.Flags().Changed("data-dir")) {
		dir, err := openDir(cfg.DataDir)
		if err != nil {
			return out, err
		}
		found, err := owners(dir)
		if err != nil {
			return out, err
		}
		for _, id := range found {
			out.PIDs = append(out.PIDs, id.PID)
		}
	}
	return out, nil
}

// clientTLS returns nil for plain text.
func (t *benchTarget) clientTLS(wanted bool) (*tls.Config, error) {
	if t.tls.Empty() && t.tls.TrustedCAFile == "" && !t.tls.InsecureSkipVerify {
		if wanted {
			return nil, errors.New("bench: the cluster requires TLS: pass its CA with --cacert")
		}
		return nil, nil
	}
	c, err := t.tls.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("bench: invalid TLS flags: %w", err)
	}
	return c, nil
}

func (t *benchTarget) print(r rendered) error { return printResult(os.Stdout, t.asJSON, r) }

var benchTexts = map[string]string{
	"put":   "Write keys",
	"get":   "Read keys, after each key was written once",
	"mixed": "Read and write keys",
	"txn":   "Compare, write and read a key in one transaction",
	"watch": "Let one client write while all others watch every key; one operation is one event",
	"lease": "Grant a lease, keep it alive once and revoke it; these three requests are one operation",
}

func (a *App) benchLoadCommand(workload string) *cobra.Command {
	short, _, _ := strings.Cut(benchTexts[workload], ";")
	cmd := &cobra.Command{Use: workload, Short: short, Long: benchTexts[workload] + ".", Args: cobra.NoArgs}
	l := bench.Load{Workload: workload}
	f := cmd.Flags()
	f.IntVar(&l.Clients, "clients", 1, "number of clients, each with one request at a time")
	f.IntVar(&l.Connections, "connections", 1, "number of connections that the clients share")
	f.IntVar(&l.Total, "total", 0, "end after this number of requests; 0: no limit")
	f.DurationVar(&l.Duration, "duration", 5*time.Second, "end after this time; 0 with --total: no limit")
	if workload != "watch" {
		f.DurationVar(&l.Warmup, "warmup", 500*time.Millisecond, "time before counting starts")
	}
	if workload == "get" || workload == "mixed" {
		f.BoolVar(&l.Serializable, "serializable", false, "use serializable reads instead of linearizable ones")
	}
	if workload == "mixed" {
		f.IntVar(&l.ReadPercent, "reads", 90, "`PERCENT` of the requests that are reads")
	}
	dataFlags(cmd, &l)
	t := a.benchTarget(cmd, targetClients, targetProcesses)
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if l.Target, err = t.resolve(cmd); err != nil {
			return err
		}
		if l.Total > 0 && !cmd.Flags().Changed("duration") {
			l.Duration = 0
		}
		l.Progress = cmd.ErrOrStderr()
		if term.IsTerminal(os.Stderr) {
			l.Ticker = os.Stderr
		}
		res, err := bench.Run(cmd.Context(), l)
		if err != nil {
			return asError(err)
		}
		return asError(t.print(res))
	}
	return cmd
}

// dataFlags adds the flags for the keys and values that are written and read.
func dataFlags(cmd *cobra.Command, l *bench.Load) {
	f := cmd.Flags()
	f.IntVar(&l.KeyBytes, "key-bytes", 16, "size of each key")
	f.IntVar(&l.ValueBytes, "value-bytes", 256, "size of each value")
	f.IntVar(&l.Keys, "keys", 10_000, "number of different keys")
	f.Uint64Var(&l.Seed, "seed", 1, "seed for the choice of keys; the same seed chooses the same keys")
	f.BoolVar(&l.Keep, "keep", false, "do not delete the keys at the end")
}

func (a *App) benchIdleCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "idle", Short: "Measure CPU, disk and memory of idle server processes", Args: cobra.NoArgs}
	d := cmd.Flags().Duration("duration", 20*time.Second, "how long to measure")
	t := a.benchTarget(cmd, targetProcesses)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		target, err := t.resolve(cmd)
		if err != nil {
			return err
		}
		res, err := bench.Idle(cmd.Context(), target.PIDs, *d)
		if err != nil {
			return asError(err)
		}
		return asError(t.print(res))
	}
	return cmd
}

func (a *App) benchMemoryCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "memory", Short: "Measure the memory of the server processes with all keys", Args: cobra.NoArgs}
	l := bench.Load{Clients: 1, Connections: 1}
	cmd.Flags().DurationVar(&l.Duration, "rest", 3*time.Second, "pause between the last write and the measurement")
	dataFlags(cmd, &l)
	t := a.benchTarget(cmd, targetClients, targetProcesses)
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if l.Target, err = t.resolve(cmd); err != nil {
			return err
		}
		l.Progress = cmd.ErrOrStderr()
		res, err := bench.Memory(cmd.Context(), l)
		if err != nil {
			return asError(err)
		}
		return asError(t.print(res))
	}
	return cmd
}

func (a *App) benchFailoverCommand() *cobra.Command {
	var kills, clients int
	var stop, promote bool
	cmd := &cobra.Command{
		Use:   "failover",
		Short: "Kill the leader while clients write, and measure the gaps",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().IntVar(&kills, "kills", 100, "number of times that the leader is killed")
	cmd.Flags().IntVar(&clients, "clients", 1, "number of clients that write at the same time, over one connection")
	cmd.Flags().BoolVar(&stop, "stop", false, "send SIGSTOP instead of SIGKILL: the leader hangs, and its followers have to detect that")
	cmd.Flags().BoolVar(&promote, "promote", false, "do not kill the leader; hand the leadership over, as 'dynast promote' does")
	cmd.MarkFlagsMutuallyExclusive("stop", "promote")
	t := a.benchTarget(cmd, targetClients)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		target, err := t.resolve(cmd)
		if err != nil {
			return err
		}
		cfg, err := t.Load()
		if err != nil {
			return err
		}
		signal := unix.SIGKILL
		if stop {
			signal = unix.SIGSTOP
		}
		action, find := "kill", FindLeader(cfg.DataDir, signal)
		if promote {
			action, find = "hand-over", handingOver(find, cfg.DataDir)
		}
		res, err := bench.Failover(cmd.Context(), bench.FailoverConfig{
			Target: target, Kills: kills, Action: action, Clients: clients,
			Find: find, Settle: 2 * time.Minute, Progress: os.Stderr,
		})
		if err != nil {
			return asError(err)
		}
		return t.printFailover(res)
	}
	return cmd
}

// handingOver wraps find. The leader that it returns hands over instead of being killed.
func handingOver(find func(context.Context) (bench.Leader, error), dataDir string) func(context.Context) (bench.Leader, error) {
	return func(ctx context.Context) (bench.Leader, error) {
		l, err := find(ctx)
		l.Kill = func() error { return Promote(ctx, dataDir, roster.Address{}, io.Discard) }
		return l, err
	}
}

func (t *benchTarget) printFailover(res *bench.FailoverResult) error {
	if err := t.print(res); err != nil {
		return asError(err)
	}
	if len(res.Missing) > 0 {
		return &Error{Code: core.ExitError, Err: fmt.Errorf("bench failover: %d acknowledged writes are missing: %v", len(res.Missing), res.Missing)}
	}
	return nil
}
