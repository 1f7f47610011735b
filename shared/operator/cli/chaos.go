package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	ossignal "os/signal"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/observe/ps"
	"github.com/dynast-io/dynast/shared/observe/tree"
	"github.com/dynast-io/dynast/shared/prove/chaos"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/plural"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

// ErrChaos means that a check of a chaos run failed.
var ErrChaos = errors.New("a check failed")

const chaosLong = `Inject faults into a cluster while ordinary etcd clients use it, then check all guarantees.
The seed determines the schedule of the faults. The exit code is 0 only if every check passed.

Without --data-dir, the command starts its own cluster in a temporary directory and on free
ports. It removes that cluster at the end, but keeps data and logs if a check failed.

With --data-dir, the command breaks the cluster that runs there. Ask its owner first. In this
mode it only sends signals and hands the leadership over, and it never touches all members at
once. It writes keys below the prefix chaos/SEED/ and deletes them at the end.

Faults: kill-leader, kill-follower, kill-heir, kill-several, kill-all, stop-continue,
kill-in-takeover, restart-all, corrupt-follower, promote, fill-disk. fill-disk needs root,
because it puts the data on a small file system in memory. Give faults with weights, for
example kill-leader=5,kill-all. "default" stands for the usual faults.

The command's own cluster also runs services: programs that write numbered lines, answer on a
socket, ignore SIGTERM, or end by themselves. Faults for them: kill-program, kill-tree,
kill-in-spawn, kill-between, kill-all-program, stop-program, burst-output, restart-service.
--services 0 leaves the services out, and so does fill-disk.

With --hosts 3, the command starts a cluster of several hosts. Each is a network namespace, so it
needs root and iproute2. Faults there: kill-engine, kill-leader (of one host), stop-continue (an
engine), kill-host, kill-hosts, restart-host, cut-host, cut-one-way, slow-links, join-host,
replace-host, promote-host, fill-disk.`

// chaosFlags holds the flags that are not those of configuration fields.
type chaosFlags struct {
	cfg    chaos.Config
	faults string
	seed   uint64
	json   bool
	html   string
}

func (a *App) chaosCommand() *cobra.Command {
	var f chaosFlags
	cmd := &cobra.Command{Use: "chaos", Short: "Inject faults under load, then check all guarantees", Long: chaosLong, Args: cobra.NoArgs}
	flags := cmd.Flags()
	flags.DurationVar(&f.cfg.Duration, "duration", time.Minute, "how long to inject faults")
	flags.BoolVar(&f.cfg.Soak, "soak", false, "run until interrupted and check every 30 s; the first finding ends the run")
	flags.StringVar(&f.faults, "faults", "default", "faults to inject, as `KIND=WEIGHT,...`")
	flags.IntVar(&f.cfg.Hosts, "hosts", 0, "number of hosts of a cluster of several, each in a network namespace, which needs root and iproute2; 0: a single host")
	flags.IntVar(&f.cfg.Clients, "clients", 8, "number of clients that put, get, delete and compare-and-swap values")
	flags.IntVar(&f.cfg.Keys, "keys", 16, "number of keys that the clients share")
	flags.IntVar(&f.cfg.ValueBytes, "value-size", 128, "size of each value in bytes")
	flags.Float64Var(&f.cfg.Rate, "rate", 1500, "operations per second of all clients together; 0: no limit")
	flags.IntVar(&f.cfg.Services, "services", 2, "number of instances of the service that is hit most often, beside 5 other services; 0: no services")
	flags.IntVar(&f.cfg.MaxFaults, "max-faults", 0, "end after so many faults; 0: no limit")
	flags.DurationVar(&f.cfg.Between, "between", 400*time.Millisecond, "longest pause after a fault")
	flags.Uint64Var(&f.seed, "seed", 0, "seed of an earlier run, to repeat its choices; 0: a new seed")
	flags.BoolVar(&f.json, "json", false, "print one JSON object")
	flags.StringVar(&f.html, "html", "", "also write the report as an HTML page with a timeline to `FILE`")
	cmd.MarkFlagsMutuallyExclusive("soak", "duration")
	c := a.WithConfig(cmd, chaosFields()...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		running := cmd.Flags().Changed("data-dir")
		ofUp := []string{"services"}
		for _, field := range chaosFields()[1:] {
			ofUp = append(ofUp, config.FlagName(field))
		}
		if err := errors.Join(
			without(cmd, running, "cannot be used with --data-dir: that cluster runs already", ofUp...),
			without(cmd, f.cfg.Hosts != 0, "cannot be used with --hosts", "services"),
			without(cmd, f.cfg.Hosts == 0, "needs --hosts", "hosts-election", "hosts-heartbeat", "hosts-snapshot-count"),
		); err != nil {
			return err
		}
		cfg, err := c.Load()
		if err != nil {
			return err
		}
		if err := f.check(cfg, running); err != nil {
			return &Error{Code: ExitUsage, Err: err}
		}
		if f.cfg.DataDir == "" {
			f.cfg.UpArgs = configArgs(cmd.Flags())
			if f.cfg.File, err = withoutServices(c.Location().File); err != nil {
				return &Error{Code: ExitUsage, Err: fmt.Errorf("chaos: %w", err)}
			}
		}
		ctx, stop := ossignal.NotifyContext(cmd.Context(), syscall.SIGTERM)
		defer stop()
		return asError(f.run(ctx))
	}
	return cmd
}

// check validates the flags and completes the configuration of the run.
func (f *chaosFlags) check(cfg *config.Config, running bool) (err error) {
	def := chaos.DefaultWeights()
	if f.cfg.Hosts != 0 {
		if err := f.checkHosts(cfg, running); err != nil {
			return err
		}
		def = chaos.HostWeights()
	} else if f.cfg.Services > 0 {
		maps.Copy(def, chaos.ServiceWeights())
	}
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
	}{{"--clients", f.cfg.Clients, 1, 10000}, {"--keys", f.cfg.Keys, 1, 100000}, {"--value-size", f.cfg.ValueBytes, 0, 1 << 20}, {"--services", f.cfg.Services, 0, 1000}, {"--max-faults", f.cfg.MaxFaults, 0, math.MaxInt}} {
		if limit.value < limit.min || limit.value > limit.max {
			return fmt.Errorf("chaos: invalid %s %d: must be between %d and %d", limit.name, limit.value, limit.min, limit.max)
		}
	}
	switch {
	case f.cfg.Duration < time.Second && !f.cfg.Soak:
		return fmt.Errorf("chaos: invalid --duration %s: must be at least 1s", f.cfg.Duration)
	case f.cfg.Between <= 0:
		return fmt.Errorf("chaos: invalid --between %s: must be greater than 0", f.cfg.Between)
	case f.cfg.Rate < 0:
		return fmt.Errorf("chaos: invalid --rate %g: must not be negative", f.cfg.Rate)
	case cfg.Client.TLS():
		return errors.New("chaos: cannot connect: the chaos clients do not support TLS: use a configuration without client.cert_file")
	}
	f.cfg.Seed = f.seed
	for f.cfg.Seed == 0 {
		f.cfg.Seed = uint64(rand.Uint32()) // short enough to type
	}
	f.cfg.Operator = ChaosOperator()
	f.cfg.Binary = proc.Executable()
	f.cfg.Followers, f.cfg.HeartbeatTimeout = cfg.Followers, cfg.Heartbeat.Timeout
	f.cfg.DiskReserve = uint64(cfg.Store.DiskReserve)
	f.cfg.Progress = os.Stderr
	return nil
}

const (
	// minHosts and maxHosts bound --hosts. With two hosts, the loss of either one stops writes.
	minHosts = 3
	maxHosts = 9
)

// checkHosts validates --hosts.
func (f *chaosFlags) checkHosts(cfg *config.Config, running bool) error {
	switch {
	case f.cfg.Hosts < minHosts || f.cfg.Hosts > maxHosts:
		return fmt.Errorf("chaos: invalid --hosts %d: must be between %d and %d", f.cfg.Hosts, minHosts, maxHosts)
	case running:
		return errors.New("chaos: --hosts cannot be used with --data-dir: the command starts its own hosts")
	}
	f.cfg.Election = cfg.Hosts.Election
	return nil
}

// chaosFields returns data_dir, and then the fields whose flags the command passes on to the cluster
// that it starts. It chooses the others itself.
func chaosFields() []string {
	fields := []string{"data_dir"}
	for _, field := range config.Fields() {
		switch field {
		case "data_dir", "client.listen", "member.ports", "hosts.join", "hosts.token_file", "hosts.name", "hosts.address":
		default:
			fields = append(fields, field)
		}
	}
	return fields
}

// configArgs returns the configuration flags that were given, as arguments for "up".
func configArgs(given *pflag.FlagSet) []string {
	var args []string
	given.Visit(func(flag *pflag.Flag) {
		if field, ok := config.FieldOfFlag(flag.Name); ok && field != "data_dir" {
			args = append(args, "--"+flag.Name+"="+flag.Value.String())
		}
	})
	return args
}

// withoutServices returns the text of a configuration file without its services. Otherwise a
// cluster that is only for a test would run the user's programs a second time.
func withoutServices(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	file, diags := hclwrite.ParseConfig(raw, path, hcl.InitialPos)
	if diags.HasErrors() {
		return nil, fmt.Errorf("read configuration: %w", diags)
	}
	for _, block := range file.Body().Blocks() {
		if block.Type() == "service" {
			file.Body().RemoveBlock(block)
		}
	}
	return file.Bytes(), nil
}

// chaosProgramCommand is the program that the services of 'dynast chaos' run.
func chaosProgramCommand() *cobra.Command {
	return &cobra.Command{
		Use: chaos.ProgramCommand, Hidden: true, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return asError(chaos.RunProgram()) },
	}
}

// ChaosOperator returns the operator commands that package chaos uses.
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
		Services: func(ctx context.Context, dataDir string) (*ps.Report, error) {
			dir, err := openDir(dataDir)
			if err != nil {
				return nil, err
			}
			return readServices(ctx, dir)
		},
		Restart: func(ctx context.Context, dataDir, name string, rolling bool) error {
			req := &wire.ActRequest{Action: string(member.ActionRestart), Names: []string{name}, Rolling: rolling}
			return Act(ctx, dataDir, req, waiting{action: member.ActionRestart, timeout: restartPatience}, io.Discard)
		},
	}
}

// restartPatience is how long a restart of a service may take in a chaos run.
const restartPatience = 30 * time.Second

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
		err = &Error{Code: core.ExitError, Err: fmt.Errorf("chaos: %w: %s, seed %d; data and logs are in %s", ErrChaos, plural.Count(len(report.Findings), "finding"), report.Seed, report.Kept)}
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
