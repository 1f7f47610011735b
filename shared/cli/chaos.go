package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	ossignal "os/signal"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/dynast-io/dynast/shared/chaos"
	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/proc"
	"github.com/dynast-io/dynast/shared/roster"
	"github.com/dynast-io/dynast/shared/tree"
)

// ErrChaos says that a check of a chaos run failed.
var ErrChaos = errors.New("a check failed")

const chaosLong = `Break a cluster on a seeded schedule while stock clients use it, then check that
everything that was promised held. Exit code 0 only when every check passed.

Without --data-dir it starts a cluster of its own, in a temporary directory and on free
ports, and removes it in the end; when a check failed, data and logs are kept. With
--data-dir it breaks the cluster that runs there, whose owner should agree: it only sends signals and
hands over, never touches all members at once, writes below the prefix chaos/SEED/ and removes that again.

Faults: kill-leader, kill-follower, kill-heir, kill-several, kill-all, stop-continue,
kill-in-takeover, restart-all, corrupt-follower, promote, fill-disk (root only: it puts the
data on a small file system in memory). Name them with weights: kill-leader=5,kill-all;
"default" stands for the usual ones.`

// chaosFlags are the flags besides the configuration's.
type chaosFlags struct {
	cfg    chaos.Config
	faults string
	seed   uint64
	json   bool
	html   string
}

func (a *App) chaosCommand() *cobra.Command {
	var f chaosFlags
	cmd := &cobra.Command{Use: "chaos", Short: "Kill, stop and damage members under load, and check what was promised", Long: chaosLong, Args: cobra.NoArgs}
	own := pflag.NewFlagSet("chaos", pflag.ContinueOnError)
	own.DurationVar(&f.cfg.Duration, "duration", time.Minute, "how long faults are injected")
	own.BoolVar(&f.cfg.Soak, "soak", false, "go on until interrupted, with a check every half a minute; the first finding ends it")
	own.StringVar(&f.faults, "faults", "default", "`KIND=WEIGHT,...` of the faults")
	own.IntVar(&f.cfg.Clients, "clients", 8, "clients that put, get, delete and exchange values")
	own.IntVar(&f.cfg.Keys, "keys", 16, "keys that they share")
	own.IntVar(&f.cfg.ValueBytes, "value-size", 128, "bytes of each value")
	own.Float64Var(&f.cfg.Rate, "rate", 1500, "operations a second that all clients together try; 0: as many as they can")
	own.Uint64Var(&f.seed, "seed", 0, "repeats the choices of an earlier run; 0: a new one")
	own.BoolVar(&f.json, "json", false, "print one JSON object")
	own.StringVar(&f.html, "html", "", "also write a page with a timeline picture to `FILE`")
	cmd.Flags().AddFlagSet(own)
	c := a.WithConfig(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := c.Load()
		if err != nil {
			return err
		}
		if err := f.check(cfg, cmd.Flags().Changed("data-dir")); err != nil {
			return &Error{Code: ExitUsage, Err: err}
		}
		if f.cfg.DataDir == "" {
			f.cfg.UpArgs = configArgs(cmd.Flags(), own)
		}
		ctx, stop := ossignal.NotifyContext(cmd.Context(), syscall.SIGTERM)
		defer stop()
		return asError(f.run(ctx))
	}
	return cmd
}

// check completes the configuration of the run.
func (f *chaosFlags) check(cfg *config.Config, running bool) (err error) {
	def := chaos.DefaultWeights()
	if running {
		def = chaos.SignalWeights()
		f.cfg.DataDir, f.cfg.ClientAddress = cfg.DataDir, Endpoint(cfg.DataDir, cfg.Client.Listen)
	}
	if f.cfg.Weights, err = chaos.ParseWeights(f.faults, def); err != nil {
		return fmt.Errorf("chaos: --faults: %w", err)
	}
	for _, limit := range []struct {
		name     string
		value    int
		min, max int
	}{{"--clients", f.cfg.Clients, 1, 10000}, {"--keys", f.cfg.Keys, 1, 100000}, {"--value-size", f.cfg.ValueBytes, 0, 1 << 20}} {
		if limit.value < limit.min || limit.value > limit.max {
			return fmt.Errorf("chaos: %s %d: allowed is %d to %d", limit.name, limit.value, limit.min, limit.max)
		}
	}
	switch {
	case f.cfg.Duration < time.Second && !f.cfg.Soak:
		return fmt.Errorf("chaos: --duration %s: allowed is 1s and more", f.cfg.Duration)
	case f.cfg.Rate < 0:
		return fmt.Errorf("chaos: --rate %g: allowed is 0 and more", f.cfg.Rate)
	case cfg.Client.TLS():
		return errors.New("chaos: its clients speak no TLS: leave client.cert_file out, or break a cluster without it")
	}
	f.cfg.Seed = f.seed
	for f.cfg.Seed == 0 {
		f.cfg.Seed = uint64(rand.Uint32()) // short enough to be typed
	}
	f.cfg.Operator = ChaosOperator()
	f.cfg.Binary = proc.Executable()
	f.cfg.Followers, f.cfg.HeartbeatTimeout = cfg.Followers, cfg.Heartbeat.Timeout
	f.cfg.DiskReserve = uint64(cfg.Store.DiskReserve)
	f.cfg.Progress = os.Stderr
	return nil
}

// configArgs are the flags of the configuration that were given, as arguments
// for "up".
func configArgs(given, own *pflag.FlagSet) []string {
	var args []string
	given.Visit(func(flag *pflag.Flag) {
		switch flag.Name {
		case "data-dir", "client-listen", "member-ports": // chosen by chaos
		default:
			if own.Lookup(flag.Name) == nil {
				args = append(args, "--"+flag.Name+"="+flag.Value.String())
			}
		}
	})
	return args
}

// ChaosOperator does what chaos asks of an operator.
func ChaosOperator() chaos.Operator {
	return chaos.Operator{
		Tree: func(ctx context.Context, dataDir string) (*tree.Tree, error) {
			dir, err := openDir(dataDir)
			if err != nil {
				return nil, err
			}
			t, _, err := readTree(ctx, dir)
			return t, err
		},
		Stop: Stop,
		Promote: func(ctx context.Context, dataDir string) error {
			return Promote(ctx, dataDir, roster.Address{}, io.Discard)
		},
	}
}

func (f *chaosFlags) run(ctx context.Context) error {
	report, err := chaos.Run(ctx, f.cfg)
	if report == nil {
		return err
	}
	var out io.Writer = os.Stdout
	if f.json {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		err = errors.Join(err, enc.Encode(report))
	} else {
		err = errors.Join(err, report.Print(out))
	}
	if f.html != "" {
		err = errors.Join(err, writePage(f.html, report))
	}
	if err == nil && !report.Passed() {
		err = &Error{Code: core.ExitError, Err: fmt.Errorf("chaos: %w: %d findings, seed %d, everything is kept in %s", ErrChaos, len(report.Findings), report.Seed, report.Kept)}
	}
	return err
}

func writePage(path string, report *chaos.Report) error {
	page, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o644))
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	defer func() { _ = page.Cleanup() }()
	if err := report.HTML(page); err != nil {
		return err
	}
	return page.CloseAtomicallyReplace()
}
