package cli

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/bench"
	"github.com/dynast-io/dynast/shared/core"
)

func (a *App) benchCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "bench", Short: "Measure a running cluster, or any server of etcd's API"}
	for _, w := range bench.Workloads {
		cmd.AddCommand(a.benchLoadCommand(w))
	}
	cmd.AddCommand(a.benchIdleCommand(), a.benchMemoryCommand(), a.benchFailoverCommand())
	return cmd
}

// benchTarget is the flags that say where the servers are. Without any of them
// it is the cluster in the data directory of the configuration.
type benchTarget struct {
	*Configured
	endpoints []string
	pids      []int
	tls       transport.TLSInfo
	asJSON    bool
}

func (a *App) benchTarget(cmd *cobra.Command) *benchTarget {
	t := &benchTarget{}
	f := cmd.Flags()
	f.StringSliceVar(&t.endpoints, "endpoints", nil, "`HOST:PORT`,... of the servers; without it the cluster of the data directory")
	f.IntSliceVar(&t.pids, "pids", nil, "`PID`,... of all server processes, for what they spend; without it those of the data directory")
	f.StringVar(&t.tls.TrustedCAFile, "cacert", "", "CA (PEM) of the servers' certificates, turns TLS on")
	f.StringVar(&t.tls.CertFile, "cert", "", "certificate (PEM) of the client")
	f.StringVar(&t.tls.KeyFile, "key", "", "key (PEM) of the client's certificate")
	f.BoolVar(&t.tls.InsecureSkipVerify, "insecure-skip-tls-verify", false, "TLS without a look at the servers' certificates")
	f.BoolVar(&t.asJSON, "json", false, "print one JSON object")
	t.Configured = a.WithConfig(cmd)
	return t
}

// resolve finds the servers. A peer that is named by its endpoints has nothing
// to do with a data directory, unless that is named as well.
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
	if len(out.Endpoints) == 0 {
		out.Endpoints = []string{Endpoint(cfg.DataDir, cfg.Client.Listen)}
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

// clientTLS is nil for plain text.
func (t *benchTarget) clientTLS(wanted bool) (*tls.Config, error) {
	if t.tls.Empty() && t.tls.TrustedCAFile == "" && !t.tls.InsecureSkipVerify {
		if wanted {
			return nil, errors.New("this cluster's clients use TLS: name its CA with --cacert")
		}
		return nil, nil
	}
	c, err := t.tls.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return c, nil
}

// rendered is a result of any measurement.
type rendered interface{ Render(io.Writer) error }

func (t *benchTarget) print(r rendered) error {
	if t.asJSON {
		return json.NewEncoder(os.Stdout).Encode(r)
	}
	return r.Render(os.Stdout)
}

var benchTexts = map[string]string{
	"put":   "Write keys",
	"get":   "Read keys, after every one was written once",
	"mixed": "Read and write keys",
	"txn":   "Compare, write and read a key in one transaction",
	"watch": "Watch what one client writes, all other clients every key; an operation is one event",
	"lease": "Grant a lease, keep it alive once and revoke it; the three are one operation",
}

func (a *App) benchLoadCommand(workload string) *cobra.Command {
	cmd := &cobra.Command{Use: workload, Short: benchTexts[workload], Args: cobra.NoArgs}
	l := bench.Load{Workload: workload}
	f := cmd.Flags()
	f.IntVar(&l.Clients, "clients", 1, "requests at the same time")
	f.IntVar(&l.Connections, "connections", 1, "connections that the clients share")
	f.IntVar(&l.Total, "total", 0, "end after so many requests")
	f.DurationVar(&l.Duration, "duration", 5*time.Second, "end after so long; 0 with --total is no limit")
	if workload != "watch" {
		f.DurationVar(&l.Warmup, "warmup", 500*time.Millisecond, "time before anything is counted")
	}
	if workload == "get" || workload == "mixed" {
		f.BoolVar(&l.Serializable, "serializable", false, "serializable reads instead of linearizable ones")
	}
	if workload == "mixed" {
		f.IntVar(&l.ReadPercent, "reads", 90, "`PERCENT` of the requests that read")
	}
	dataFlags(cmd, &l)
	t := a.benchTarget(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if l.Target, err = t.resolve(cmd); err != nil {
			return err
		}
		if l.Total > 0 && !cmd.Flags().Changed("duration") {
			l.Duration = 0
		}
		l.Progress = cmd.ErrOrStderr()
		res, err := bench.Run(cmd.Context(), l)
		if err != nil {
			return asError(err)
		}
		return asError(t.print(res))
	}
	return cmd
}

// dataFlags are the flags of what is written and read.
func dataFlags(cmd *cobra.Command, l *bench.Load) {
	f := cmd.Flags()
	f.IntVar(&l.KeyBytes, "key-bytes", 16, "size of each key")
	f.IntVar(&l.ValueBytes, "value-bytes", 256, "size of each value")
	f.IntVar(&l.Keys, "keys", 10_000, "different keys")
	f.Uint64Var(&l.Seed, "seed", 1, "makes the choice of keys repeatable")
}

func (a *App) benchIdleCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "idle", Short: "What the server processes spend while nobody asks", Args: cobra.NoArgs}
	d := cmd.Flags().Duration("duration", 20*time.Second, "how long they are looked at")
	t := a.benchTarget(cmd)
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
	cmd := &cobra.Command{Use: "memory", Short: "What the server processes hold after every key was written once", Args: cobra.NoArgs}
	l := bench.Load{Clients: 1, Connections: 1}
	cmd.Flags().DurationVar(&l.Duration, "rest", 3*time.Second, "how long they come to rest before they are looked at")
	dataFlags(cmd, &l)
	t := a.benchTarget(cmd)
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
	var stop bool
	cmd := &cobra.Command{
		Use:   "failover",
		Short: "Kill the leader again and again under writing clients, and measure the gaps",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().IntVar(&kills, "kills", 100, "how often the leader is killed")
	cmd.Flags().IntVar(&clients, "clients", 1, "clients that write at the same time, over one connection")
	cmd.Flags().BoolVar(&stop, "stop", false, "send SIGSTOP instead of SIGKILL: the leader hangs, and has to be found out")
	t := a.benchTarget(cmd)
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
		res, err := bench.Failover(cmd.Context(), bench.FailoverConfig{
			Target: target, Kills: kills, Clients: clients,
			Find: FindLeader(cfg.DataDir, cfg.Followers, signal), Settle: 2 * time.Minute, Progress: os.Stderr,
		})
		if err != nil {
			return asError(err)
		}
		return t.printFailover(res)
	}
	return cmd
}

func (t *benchTarget) printFailover(res *bench.FailoverResult) error {
	if err := t.print(res); err != nil {
		return asError(err)
	}
	if len(res.Missing) > 0 {
		return &Error{Code: core.ExitError, Err: fmt.Errorf("%d acknowledged writes are missing: %v", len(res.Missing), res.Missing)}
	}
	return nil
}
