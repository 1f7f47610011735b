package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/sim"
)

// SimOptions says what 'dynast sim' does.
type SimOptions struct {
	// Search is which seeds are run, and for how long.
	Search sim.Search
	// Seed, if not 0, is the only one.
	Seed uint64
	// Trace prints the whole transcript of Seed.
	Trace bool
	JSON  bool
}

// transcriptLines is how much of the transcript of a seed that fails is printed.
const transcriptLines = 200

func (a *App) simCommand() *cobra.Command {
	var o SimOptions
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Simulate clusters under faults, and check that nothing acknowledged is lost",
		Long: `Runs the rules of all members of a cluster under a seeded scheduler, on a simulated
kernel and disk that break in every way they can, with an oracle that checks each step. Nothing
outside of this process is touched. The same seed of the same build is the same run.

A seed that breaks a rule ends it: the end of its transcript is printed, and the exit code is 1.`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.IntVar(&o.Search.Seeds, "seeds", 10_000, "how many seeds to run; 0: until --budget is over, or an interrupt")
	f.Uint64Var(&o.Search.First, "first", 1, "the first seed")
	f.Uint64Var(&o.Seed, "seed", 0, "run this seed alone")
	f.BoolVar(&o.Trace, "trace", false, "with --seed: print its whole transcript")
	f.BoolVar(&o.JSON, "json", false, "print one JSON object")
	f.DurationVar(&o.Search.Budget, "budget", 0, "end after this time; 0: after --seeds")
	f.IntVar(&o.Search.Workers, "workers", 0, "how many seeds run at a time; 0: one for each processor")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
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
		return &Error{Code: ExitUsage, Err: fmt.Errorf("sim: --seeds, --budget and --workers are not negative")}
	case o.Trace && o.Seed == 0:
		return &Error{Code: ExitUsage, Err: fmt.Errorf("sim: --trace needs the --seed whose transcript is to be printed")}
	case o.Trace && o.JSON:
		return &Error{Code: ExitUsage, Err: fmt.Errorf("sim: --trace and --json exclude each other")}
	}
	return nil
}

// simResult is what --json prints.
type simResult struct {
	First          uint64    `json:"first_seed"`
	ElapsedSeconds float64   `json:"elapsed_seconds"`
	Stats          sim.Stats `json:"stats"`
	// Of the seed that broke a rule, if one did:
	Seed       uint64   `json:"failed_seed,omitempty"`
	Violation  string   `json:"violation,omitempty"`
	Transcript []string `json:"transcript,omitempty"`
}

// Sim runs the simulator. The result goes to out, a line a second about how it
// goes to progress. The error has the code ExitError when a rule was broken.
func Sim(ctx context.Context, o SimOptions, out, progress io.Writer) error {
	s := o.Search
	if o.Seed != 0 {
		s.First, s.Seeds, s.Workers, s.Budget = o.Seed, 1, 1, 0
	}
	if o.Trace {
		s.Config.Trace = func(line string) { _, _ = fmt.Fprintln(out, line) }
	}
	began := time.Now()
	s.Progress = func(st sim.Stats) {
		_, _ = fmt.Fprintf(progress, "%d seeds in %s, %d takeovers, %d writes acknowledged, no rule broken\n",
			st.Runs, time.Since(began).Round(time.Second), st.Leads, st.Acknowledged)
	}
	found := s.Run(ctx)
	s.Config.Trace = nil
	res := simResult{First: s.First, ElapsedSeconds: found.Elapsed.Seconds(), Stats: found.Stats}
	if v := found.Violation; v != nil {
		cfg := s.Config
		cfg.Seed = v.Seed
		res.Seed, res.Violation, res.Transcript = v.Seed, v.Error(), sim.Transcript(cfg, transcriptLines)
	}
	if err := res.print(o, out); err != nil {
		return asError(err)
	}
	if found.Violation != nil {
		return &Error{Code: core.ExitError, Err: fmt.Errorf("the simulator found a broken rule: %w", found.Violation)}
	}
	return nil
}

func (r simResult) print(o SimOptions, out io.Writer) error {
	if o.JSON {
		return json.NewEncoder(out).Encode(r)
	}
	if r.Violation != "" && !o.Trace {
		for _, line := range r.Transcript {
			if _, err := fmt.Fprintln(out, line); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintf(out, "\nthe whole of it: dynast sim --seed %d --trace\n", r.Seed); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(out, "%s\n%s%.1f s from seed %d on\n", r.Stats, r.Stats.FaultTable(), r.ElapsedSeconds, r.First)
	return err
}
