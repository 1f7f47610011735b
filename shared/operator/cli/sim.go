package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/dynast-io/dynast/shared/prove/sim"
	"github.com/dynast-io/dynast/shared/prove/sim/search"
	"github.com/dynast-io/dynast/shared/prove/sim/services"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/plural"
)

// SimOptions holds the options of 'dynast sim'.
type SimOptions struct {
	// Search says which seeds to run, and for how long.
	Search sim.Search
	// Seed is the only seed to run; 0 means to run all seeds of Search.
	Seed uint64
	// Trace prints the whole transcript of Seed.
	Trace bool
	JSON  bool
	// Services simulates the supervision of the user's services instead of a cluster.
	Services bool
}

// transcriptLines is how many transcript lines are printed for a seed that broke a rule.
const transcriptLines = 200

func (a *App) simCommand() *cobra.Command {
	var o SimOptions
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Simulate clusters under faults, and check the guarantees",
		Long: `Runs the decision logic of all members of a cluster under a seeded scheduler. The kernel and
the disk are simulated and fail in many ways. An oracle checks each step. The command touches
nothing outside of its own process. The same seed gives the same run with the same build.

The search ends at the first seed that breaks a rule. The command then prints the end of the
transcript of that seed and exits with code 1. With --keep-going, the search continues, and the
command prints one line for each seed that breaks a rule.`,
		Example: `  dynast sim --seeds 0 --budget 10m --first 5000000
  dynast sim --rough --keep-going --seeds 200000
  dynast sim --seed 50020662 --trace`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.IntVar(&o.Search.Seeds, "seeds", 10_000, "number of seeds to run; 0: run until --budget is used up, or until interrupted")
	f.Uint64Var(&o.Search.First, "first", 1, "first seed of the search")
	f.Uint64Var(&o.Seed, "seed", 0, "run only this seed")
	f.BoolVar(&o.Trace, "trace", false, "print the whole transcript; needs --seed")
	f.BoolVar(&o.JSON, "json", false, "print one JSON object")
	f.DurationVar(&o.Search.Budget, "budget", 0, "end the search after this time; 0: no time limit")
	f.BoolVar(&o.Search.Config.Rough, "rough", false, "make every rare fault likely")
	f.BoolVar(&o.Search.KeepGoing, "keep-going", false, "continue after a seed that breaks a rule")
	f.IntVar(&o.Search.Workers, "workers", 0, "number of seeds that run at the same time; 0: one per processor")
	f.BoolVar(&o.Services, "services", false, "simulate the supervision of the user's services instead of a cluster")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := without(cmd, o.Seed != 0, "cannot be used with --seed, which runs a single seed", "seeds", "first", "budget", "workers", "keep-going"); err != nil {
			return err
		}
		if err := o.check(); err != nil {
			return err
		}
		return Sim(cmd.Context(), o, os.Stdout, os.Stderr)
	}
	return cmd
}

func (o SimOptions) check() error {
	switch {
	case o.Search.Seeds < 0 || o.Search.Budget < 0 || o.Search.Workers < 0:
		return &Error{Code: ExitUsage, Err: fmt.Errorf("sim: negative value: --seeds, --budget and --workers must be 0 or more")}
	case o.Trace && o.Seed == 0:
		return &Error{Code: ExitUsage, Err: fmt.Errorf("sim: --trace without --seed: add --seed to say which transcript to print")}
	case o.Trace && o.JSON:
		return &Error{Code: ExitUsage, Err: fmt.Errorf("sim: --trace and --json were both given: use only one of them")}
	}
	if o.Services && o.Search.Config.Rough {
		return &Error{Code: ExitUsage, Err: fmt.Errorf("sim: --services and --rough were both given: use only one of them")}
	}
	return nil
}

// simulation is one of the simulators.
type simulation[C search.Config[C, S], S fmt.Stringer, P search.Stats[S]] struct {
	search search.Search[C, S, P]
	// flags are those that choose it.
	flags string
	// counts returns the number of runs and of those that broke a rule. progress describes the rest.
	counts   func(S) (runs, broken int)
	progress func(S) string
	// table describes the faults, or is "".
	table      func(S) string
	trace      func(C, func(line string)) C
	transcript func(c C, lines int) []string
}

// Sim runs the simulator. It writes the result to out, and a progress line every second to
// progress. The error has the code ExitError if a rule was broken.
func Sim(ctx context.Context, o SimOptions, out, progress io.Writer) error {
	s := o.Search
	if o.Services {
		return simulate(ctx, o, simulation[services.Config, services.Stats, *services.Stats]{
			search: services.Search{First: s.First, Seeds: s.Seeds, Budget: s.Budget, Workers: s.Workers, KeepGoing: s.KeepGoing, ProgressEvery: s.ProgressEvery},
			flags:  " --services", counts: func(st services.Stats) (int, int) { return st.Runs, st.Violations },
			progress: func(st services.Stats) string {
				return fmt.Sprintf("%d leaders, %d processes started", st.Leads, st.Starts)
			},
			table:      func(services.Stats) string { return "" },
			trace:      func(c services.Config, f func(string)) services.Config { c.Trace = f; return c },
			transcript: services.Transcript,
		}, out, progress)
	}
	flags := ""
	if s.Config.Rough {
		flags = " --rough"
	}
	return simulate(ctx, o, simulation[sim.Config, sim.Stats, *sim.Stats]{
		search: s, flags: flags, counts: func(st sim.Stats) (int, int) { return st.Runs, st.Violations },
		progress: func(st sim.Stats) string {
			return fmt.Sprintf("%d takeovers, %d writes acknowledged", st.Leads, st.Acknowledged)
		},
		table:      sim.Stats.FaultTable,
		trace:      func(c sim.Config, f func(string)) sim.Config { c.Trace = f; return c },
		transcript: sim.Transcript,
	}, out, progress)
}

// simResult is what --json prints.
type simResult[S any] struct {
	First          uint64  `json:"first_seed"`
	ElapsedSeconds float64 `json:"elapsed_seconds"`
	Stats          S       `json:"stats"`
	// Broken lists all violations that --keep-going found.
	Broken []string `json:"violations,omitempty"`
	// The rest describes the first seed that broke a rule.
	Seed       uint64   `json:"failed_seed,omitempty"`
	Violation  string   `json:"violation,omitempty"`
	Transcript []string `json:"transcript,omitempty"`
}

func simulate[C search.Config[C, S], S fmt.Stringer, P search.Stats[S]](ctx context.Context, o SimOptions, x simulation[C, S, P], out, progress io.Writer) error {
	s := x.search
	if o.Seed != 0 {
		s.First, s.Seeds, s.Workers, s.Budget = o.Seed, 1, 1, 0
	}
	s.First = max(s.First, 1)
	if o.Trace {
		s.Config = x.trace(s.Config, func(line string) { _, _ = fmt.Fprintln(out, line) })
	}
	began := time.Now()
	s.Progress = func(st S) {
		runs, broken := x.counts(st)
		_, _ = fmt.Fprintf(progress, "%s in %s, %s, %s\n", plural.Count(runs, "seed"), time.Since(began).Round(time.Second), x.progress(st), brokenRules(broken))
	}
	if !o.JSON {
		_, _ = fmt.Fprintf(progress, "simulating from seed %d\n", s.First)
	}
	found := s.Run(ctx)
	res := simResult[S]{First: s.First, ElapsedSeconds: found.Elapsed.Seconds(), Stats: found.Stats}
	if s.KeepGoing {
		for _, v := range found.Violations {
			res.Broken = append(res.Broken, v.Error())
		}
	}
	if v := found.Violation; v != nil {
		res.Seed, res.Violation, res.Transcript = v.Seed, v.Error(), x.transcript(x.search.Config.WithSeed(v.Seed), transcriptLines)
	}
	if err := res.print(o, x.flags, x.table(found.Stats), out); err != nil {
		return asError(err)
	}
	if found.Violation != nil {
		return &Error{Code: core.ExitError, Err: fmt.Errorf("sim: a rule was broken: %w", found.Violation)}
	}
	return nil
}

func brokenRules(n int) string {
	if n == 0 {
		return "no rule broken"
	}
	return plural.Count(n, "seed") + " broke a rule"
}

func (r simResult[S]) print(o SimOptions, flags, table string, out io.Writer) error {
	if o.JSON {
		return json.NewEncoder(out).Encode(r)
	}
	if r.Violation != "" && !o.Trace {
		for _, line := range r.Transcript {
			if _, err := fmt.Fprintln(out, line); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintf(out, "\nto print the whole transcript: dynast sim%s --seed %d --trace\n", flags, r.Seed); err != nil {
			return err
		}
	}
	for _, v := range r.Broken {
		if _, err := fmt.Fprintln(out, v); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(out, "%v\n%s%.1f s, first seed %d\n", r.Stats, table, r.ElapsedSeconds, r.First)
	return err
}
