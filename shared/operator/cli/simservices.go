package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/dynast-io/dynast/shared/prove/sim/services"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/plural"
)

// servicesResult is what 'dynast sim --services --json' prints.
type servicesResult struct {
	First          uint64         `json:"first_seed"`
	ElapsedSeconds float64        `json:"elapsed_seconds"`
	Stats          services.Stats `json:"stats"`
	Broken         []string       `json:"violations,omitempty"`
	// The rest describes the first seed that broke a rule.
	Seed       uint64   `json:"failed_seed,omitempty"`
	Transcript []string `json:"transcript,omitempty"`
}

// SimServices is Sim for the rules of the user's services.
func SimServices(ctx context.Context, o SimOptions, out, progress io.Writer) error {
	s := services.Search{First: max(o.Search.First, 1), Seeds: o.Search.Seeds, Budget: o.Search.Budget, Workers: o.Search.Workers, KeepGoing: o.Search.KeepGoing}
	if o.Seed != 0 {
		s.First, s.Seeds, s.Workers, s.Budget = o.Seed, 1, 1, 0
	}
	if o.Trace {
		s.Config.Trace = func(line string) { _, _ = fmt.Fprintln(out, line) }
	}
	began := time.Now()
	s.Progress = func(st services.Stats) {
		_, _ = fmt.Fprintf(progress, "%s in %s, %s, %s started, %s\n",
			plural.Count(st.Runs, "seed"), time.Since(began).Round(time.Second), plural.Count(st.Leads, "leader"), plural.Count(st.Starts, "process"), brokenRules(st.Violations))
	}
	if !o.JSON {
		_, _ = fmt.Fprintf(progress, "simulating from seed %d\n", s.First)
	}
	found := s.Run(ctx)
	res := servicesResult{First: s.First, ElapsedSeconds: found.Elapsed.Seconds(), Stats: found.Stats}
	for _, v := range found.Violations {
		res.Broken = append(res.Broken, v.Error())
	}
	if len(found.Violations) > 0 {
		res.Seed = found.Violations[0].Seed
		res.Transcript = services.Transcript(services.Config{Seed: res.Seed}, transcriptLines)
	}
	if err := res.print(o, out); err != nil {
		return asError(err)
	}
	if len(found.Violations) > 0 {
		return &Error{Code: core.ExitError, Err: fmt.Errorf("sim: a rule was broken: %w", found.Violations[0])}
	}
	return nil
}

func (r servicesResult) print(o SimOptions, out io.Writer) error {
	if o.JSON {
		return json.NewEncoder(out).Encode(r)
	}
	lines := r.Broken
	if r.Seed != 0 && !o.Trace {
		lines = append(r.Transcript, "", fmt.Sprintf("to print the whole transcript: dynast sim --services --seed %d --trace", r.Seed))
		lines = append(lines, r.Broken...)
	}
	for _, line := range append(lines, r.Stats.String(), fmt.Sprintf("%.1f s, first seed %d", r.ElapsedSeconds, r.First)) {
		if _, err := fmt.Fprintln(out, line); err != nil {
			return err
		}
	}
	return nil
}
