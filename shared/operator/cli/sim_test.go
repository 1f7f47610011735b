package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/prove/sim"
	"github.com/dynast-io/dynast/shared/rules/core"
)

func TestSimRunsSeeds(t *testing.T) {
	var out, progress bytes.Buffer
	o := SimOptions{Search: sim.Search{First: 7, Seeds: 20, Workers: 2, ProgressEvery: time.Millisecond}, JSON: true}
	if err := Sim(t.Context(), o, &out, &progress); err != nil {
		t.Fatal(err)
	}
	var res struct {
		First uint64 `json:"first_seed"`
		Stats struct {
			Runs         int `json:"runs"`
			Acknowledged int `json:"acknowledged_writes"`
			Faults       map[string]struct{ Times, Runs int }
		} `json:"stats"`
	}
	if err := json.Unmarshal(out.Bytes(), &res); err != nil {
		t.Fatalf("%v in %s", err, &out)
	}
	if res.First != 7 || res.Stats.Runs != 20 || res.Stats.Acknowledged == 0 || res.Stats.Faults["power_lost"].Times == 0 {
		t.Errorf("the result is %s", &out)
	}
	if !strings.Contains(progress.String(), "no rule broken") {
		t.Errorf("there is no line of progress: %q", &progress)
	}
}

// No cluster can keep a bound this small, so every seed breaks the rule.
func TestSimReportsABrokenRule(t *testing.T) {
	impossible := sim.Search{First: 1, Seeds: 50, Workers: 2, Config: sim.Config{BoundSteps: 1}}
	for _, asJSON := range []bool{false, true} {
		var out bytes.Buffer
		err := Sim(t.Context(), SimOptions{Search: impossible, JSON: asJSON}, &out, io.Discard)
		var coded *Error
		if !errors.As(err, &coded) || coded.Code != core.ExitError || !strings.Contains(err.Error(), "seed 1 ") {
			t.Fatalf("json %t: the error is %v", asJSON, err)
		}
		want := []string{"VIOLATION: the cluster is not healthy after", "followers, min_sync"}
		if asJSON {
			want = append(want, `"failed_seed":1`)
		} else {
			want = append(want, "dynast sim --seed 1 --trace")
		}
		for _, w := range want {
			if !strings.Contains(out.String(), w) {
				t.Errorf("json %t: %q is missing in\n%s", asJSON, w, &out)
			}
		}
	}
}

func TestSimTracesOneSeed(t *testing.T) {
	trace := func() string {
		var out bytes.Buffer
		if err := Sim(t.Context(), SimOptions{Seed: 3, Trace: true}, &out, io.Discard); err != nil {
			t.Fatal(err)
		}
		story, _, found := strings.Cut(out.String(), "1 runs, ")
		if !found {
			t.Fatalf("no summary in\n%s", &out)
		}
		return story
	}
	a := trace()
	if !strings.Contains(a, "took_over") || a != trace() {
		t.Errorf("the transcript is empty, or the second run gave another one:\n%s", a)
	}
}

func TestSimEndsInTime(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out bytes.Buffer
	if err := Sim(ctx, SimOptions{}, &out, io.Discard); err != nil || !strings.Contains(out.String(), "0 runs") {
		t.Errorf("interrupted: %v, %s", err, &out)
	}
	out.Reset()
	if err := Sim(t.Context(), SimOptions{Search: sim.Search{Budget: 50 * time.Millisecond}}, &out, io.Discard); err != nil || strings.HasPrefix(out.String(), "0 runs") {
		t.Errorf("with a budget: %v, %s", err, &out)
	}
}

func TestSimRefusesInvalidFlags(t *testing.T) {
	for _, args := range [][]string{{"--trace"}, {"--seeds=-1"}, {"--seed=1", "--trace", "--json"}, {"--budget=-1s"}, {"--services", "--rough"}} {
		cmd := (&App{}).simCommand()
		cmd.SetArgs(args)
		cmd.SilenceUsage, cmd.SilenceErrors = true, true
		var coded *Error
		if err := cmd.ExecuteContext(t.Context()); !errors.As(err, &coded) || coded.Code != ExitUsage {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func TestSimOfServices(t *testing.T) {
	for _, o := range []SimOptions{{Services: true, Search: sim.Search{Seeds: 5, First: 7}}, {Services: true, Search: sim.Search{Seeds: 5, First: 7}, JSON: true}} {
		var out bytes.Buffer
		if err := Sim(t.Context(), o, &out, io.Discard); err != nil {
			t.Fatalf("%v\n%s", err, &out)
		}
		if want := map[bool]string{false: "5 runs, ", true: `"first_seed":7`}[o.JSON]; !strings.Contains(out.String(), want) {
			t.Errorf("the result lacks %s: %s", want, &out)
		}
	}
	var out bytes.Buffer
	if err := Sim(t.Context(), SimOptions{Services: true, Seed: 3, Trace: true}, &out, io.Discard); err != nil || !strings.Contains(out.String(), "no more faults") {
		t.Errorf("%v, the transcript is incomplete: %s", err, &out)
	}
}
