package events

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/dynast-io/dynast/shared/rules/core"
)

// FailoverBounds are the upper bounds, in seconds, of the histogram of takeover durations.
var FailoverBounds = []float64{.0025, .005, .01, .015, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// Totals counts events across leaders.
type Totals struct {
	// Restarts counts processes that had to be replaced, by reason.
	Restarts map[string]uint64 `json:"restarts"`
	// Takeovers counts changes from one leader to the next, by reason.
	Takeovers map[string]uint64 `json:"takeovers"`
	// FailoverCounts has a count for each of FailoverBounds and one for longer durations.
	// FailoverSeconds is the sum of all durations.
	FailoverCounts  []uint64 `json:"failover_counts"`
	FailoverSeconds float64  `json:"failover_seconds"`
	// Starts counts the processes that were started for each slot since the last "up".
	Starts map[int]uint64 `json:"starts"`
}

// The reasons of restarts and takeovers. They are values of a metric's label.
const (
	ReasonSignal     = "signal"       // killed by a signal from outside
	ReasonExit       = "exit"         // ended by itself
	ReasonSilent     = "silent"       // hung or stopped, and killed for it
	ReasonStart      = "start_failed" // never came up
	ReasonUnknown    = "unknown"      // it is not known how it ended
	ReasonHandedOver = "handed_over"  // a hand-over
)

// Reasons are the reasons of restarts, so that a metric can show a zero for each.
var Reasons = []string{ReasonSignal, ReasonExit, ReasonSilent, ReasonStart, ReasonUnknown}

// TakeoverReasons are the reasons of takeovers.
var TakeoverReasons = []string{ReasonSignal, ReasonExit, ReasonSilent, ReasonUnknown, ReasonHandedOver}

// Reason classifies a text that says how a process ended.
func Reason(text string) string {
	if rest, handing := strings.CutPrefix(text, "handing over to "); handing {
		// A process that was killed during the hand-over counts as killed.
		if _, end, _ := strings.Cut(rest, ", "); strings.HasPrefix(end, "signal") || strings.HasPrefix(end, "silent") {
			return Reason(end)
		}
		return ReasonHandedOver
	}
	switch {
	case strings.HasPrefix(text, "signal"):
		return ReasonSignal
	case strings.HasPrefix(text, "exit status"):
		return ReasonExit
	case strings.HasPrefix(text, "silent"), strings.HasPrefix(text, "stopped by a signal"):
		return ReasonSilent
	case strings.HasPrefix(text, "did not join"):
		return ReasonStart
	}
	return ReasonUnknown
}

const takeoverPrefix = "succeeds a leader that ended: "

// TakeoverDetail returns the detail of a Serving event, which says how the previous leader
// ended.
func TakeoverDetail(reason string) string { return takeoverPrefix + reason }

// with returns the totals after one more note. It returns t itself if the note does not count.
func (t *Totals) with(n note) *Totals {
	switch n.event.Kind {
	case core.MemberDied.String(), core.SpawnError.String(), Started, Serving:
	default:
		if n.slot == 0 {
			return t
		}
	}
	out := t.clone()
	if n.slot > 0 {
		out.Starts[n.slot]++
		return out
	}
	switch e := n.event; e.Kind {
	case core.MemberDied.String():
		out.Restarts[Reason(e.Detail)]++
	case core.SpawnError.String():
		out.Restarts[ReasonStart]++
	case Started:
		clear(out.Starts)
	case Serving:
		reason, after := strings.CutPrefix(e.Detail, takeoverPrefix)
		if !after {
			break
		}
		out.Takeovers[Reason(reason)]++
		if r := Reason(reason); r != ReasonHandedOver {
			out.Restarts[r]++ // the old leader's process is replaced too
		}
		i := 0
		for i < len(FailoverBounds) && e.Seconds > FailoverBounds[i] {
			i++
		}
		out.FailoverCounts[i]++
		out.FailoverSeconds += e.Seconds
	}
	return out
}

func (t *Totals) clone() *Totals {
	out := *t
	out.Restarts, out.Takeovers, out.Starts = maps.Clone(t.Restarts), maps.Clone(t.Takeovers), maps.Clone(t.Starts)
	if out.Restarts == nil {
		out.Restarts = map[string]uint64{}
	}
	if out.Takeovers == nil {
		out.Takeovers = map[string]uint64{}
	}
	if out.Starts == nil {
		out.Starts = map[int]uint64{}
	}
	out.FailoverCounts = make([]uint64, len(FailoverBounds)+1)
	copy(out.FailoverCounts, t.FailoverCounts)
	return &out
}

// RestartsIn is how often a slot needed a new process since the last "up".
func (t *Totals) RestartsIn(slot int) uint64 { return max(t.Starts[slot], 1) - 1 }

// AllRestarts is the number of restarts for all reasons.
func (t *Totals) AllRestarts() uint64 { return sum(t.Restarts) }

// AllTakeovers is the number of takeovers for all reasons.
func (t *Totals) AllTakeovers() uint64 { return sum(t.Takeovers) }

func sum(m map[string]uint64) uint64 {
	var n uint64
	for _, v := range m {
		n += v
	}
	return n
}

// maxTotalsBytes bounds how much of the file is read.
const maxTotalsBytes = 64 << 10

// readTotals returns nil without an error if there are no totals yet.
func readTotals(dir string) (*Totals, error) {
	f, err := os.Open(filepath.Join(dir, totalsName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read totals: %w", err)
	}
	defer f.Close()
	var t Totals
	if err := json.NewDecoder(io.LimitReader(f, maxTotalsBytes)).Decode(&t); err != nil {
		return nil, fmt.Errorf("read totals: %s: %w", f.Name(), err)
	}
	return t.clone(), nil
}

// write replaces the file as a whole, without a sync. A power loss costs only a few counts.
func (t *Totals) write(dir string) error {
	raw, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return fmt.Errorf("write totals: %w", err)
	}
	path := filepath.Join(dir, totalsName)
	tmp := path + ".new"
	if err := os.WriteFile(tmp, append(raw, '\n'), fileMode); err != nil {
		_ = os.Remove(tmp) // on a full disk, give the space back
		return fmt.Errorf("write totals: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write totals: %w", err)
	}
	return nil
}
