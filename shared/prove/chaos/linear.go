package chaos

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// oneKey is the behaviour of a single process with one key.
var oneKey = porcupine.Model{
	Partition: func(ops []porcupine.Operation) [][]porcupine.Operation {
		by := map[string][]porcupine.Operation{}
		for _, op := range ops {
			k := op.Input.(Request).Key
			by[k] = append(by[k], op)
		}
		var parts [][]porcupine.Operation
		for _, p := range by {
			parts = append(parts, p)
		}
		return parts
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		r, a, value := input.(Request), output.(Answer), state.(string)
		ok := a.Unknown || a.Was == value
		switch {
		case r.Kind == Put, r.Kind == Exchange && value == r.From:
			value = r.To
		case r.Kind == Delete:
			value = ""
		}
		return ok, value
	},
	DescribeOperation: func(input, output any) string {
		r, a := input.(Request), output.(Answer)
		text := fmt.Sprintf("%s %s", r.Kind, r.Key)
		switch r.Kind {
		case Put:
			text += " = " + r.To
		case Exchange:
			text += fmt.Sprintf(" %q to %s", r.From, r.To)
		}
		if a.Unknown {
			return text + ": unknown"
		}
		return fmt.Sprintf("%s: was %q, revision %d", text, a.Was, a.Revision)
	},
}

// settle bounds the operations with an unknown outcome. If an operation reported the value of
// such a write, the write happened before that operation returned. If none did, the write can be
// left out: the next operation on the key would have reported its value. A delete leaves no
// value, so it may happen at any time after its call.
func settle(ops []porcupine.Operation) []porcupine.Operation {
	seen := map[string]int64{} // values are unique over all keys
	last := int64(0)
	for _, op := range ops {
		last = max(last, op.Return, op.Call)
		if a := op.Output.(Answer); !a.Unknown {
			if at, ok := seen[a.Was]; !ok || op.Return < at {
				seen[a.Was] = op.Return
			}
		}
	}
	var out []porcupine.Operation
	for _, op := range ops {
		if op.Output.(Answer).Unknown {
			op.Return = last + 1
			if to := op.Input.(Request).To; to != "" {
				at, ok := seen[to]
				if !ok {
					continue
				}
				// A value that was seen before its write was called has no valid order, and
				// porcupine must find that. Return must not be before the call.
				op.Return = max(at, op.Call)
			}
		}
		out = append(out, op)
	}
	return out
}

// Linear is porcupine's verdict on a history.
type Linear struct {
	Result porcupine.CheckResult
	info   porcupine.LinearizationInfo
	ops    []porcupine.Operation
}

// CheckLinear searches for an order of all operations, key by key, that a single process could
// have produced. The search takes no longer than limit. porcupine.Unknown proves nothing.
func CheckLinear(ops []porcupine.Operation, limit time.Duration) *Linear {
	l := &Linear{ops: settle(ops)}
	l.Result, l.info = porcupine.CheckOperationsVerbose(oneKey, l.ops, limit)
	return l
}

// Visualize writes porcupine's picture of the history as an HTML file.
func (l *Linear) Visualize(path string) error {
	if err := porcupine.VisualizePath(oneKey, l.info, path); err != nil {
		return fmt.Errorf("write the picture of the history: %w", err)
	}
	return nil
}

// Explain names the keys whose history is not linearizable. It shows the operations around the
// end of the shortest part that is not.
func (l *Linear) Explain() string {
	var b strings.Builder
	for _, part := range oneKey.Partition(l.ops) {
		if porcupine.CheckOperationsTimeout(oneKey, part, 10*time.Second) != porcupine.Illegal {
			continue
		}
		slices.SortFunc(part, func(x, y porcupine.Operation) int { return cmp.Compare(x.Call, y.Call) })
		at := shortestIllegal(part)
		fmt.Fprintf(&b, "%s: no order explains the operations up to\n", part[0].Input.(Request).Key)
		for _, op := range part[max(0, at-15):min(len(part), at+3)] {
			fmt.Fprintf(&b, "  %12.3fms to %12.3fms  client %d  %s\n", float64(op.Call)/1e6, float64(op.Return)/1e6, op.ClientId, oneKey.DescribeOperation(op.Input, op.Output))
		}
	}
	return b.String()
}

// shortestIllegal returns the length of the shortest prefix, ordered by the time of the call,
// that is not linearizable.
func shortestIllegal(part []porcupine.Operation) int {
	lo, hi := 0, len(part) // the first lo operations are legal, the first hi are not
	for lo+1 < hi {
		mid := (lo + hi) / 2
		if porcupine.CheckOperationsTimeout(oneKey, part[:mid], 5*time.Second) == porcupine.Illegal {
			hi = mid
		} else {
			lo = mid
		}
	}
	return hi
}

// CheckRevisions returns the violations of revisions. If a change began after another change was
// answered, it must have the higher revision, whatever their keys are. No two changes may have
// the same revision.
func CheckRevisions(ops []porcupine.Operation) (wrong []string) {
	by := map[int64]porcupine.Operation{}
	var writes []porcupine.Operation
	for _, op := range ops {
		rev := op.Output.(Answer).Revision
		if rev == 0 {
			continue
		}
		if other, ok := by[rev]; ok {
			wrong = append(wrong, fmt.Sprintf("two changes at revision %d: %+v and %+v", rev, other.Input, op.Input))
		}
		by[rev] = op
		writes = append(writes, op)
	}
	slices.SortFunc(writes, func(x, y porcupine.Operation) int {
		return cmp.Compare(x.Output.(Answer).Revision, y.Output.(Answer).Revision)
	})
	var newest porcupine.Operation // the operation with the latest call so far, in the order of revisions
	for _, op := range writes {
		if op.Return < newest.Call {
			wrong = append(wrong, fmt.Sprintf("%+v at revision %d was answered before %+v at revision %d began",
				op.Input, op.Output.(Answer).Revision, newest.Input, newest.Output.(Answer).Revision))
		}
		if op.Call > newest.Call {
			newest = op
		}
	}
	return wrong
}
