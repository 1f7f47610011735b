package chaos

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// oneKey is what a single process would do with one key.
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

// settle bounds the operations of which nobody knows the outcome. One that
// somebody saw the effect of happened before it was seen. One that nobody saw
// can be left out: whatever came after it would have told its value. Unknown deletes
// leave no value and may happen at any time after their call.
func settle(ops []porcupine.Operation) []porcupine.Operation {
	seen := map[string]int64{} // values are unique, over all keys
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
				// A value that was seen before it was written has no order, which
				// porcupine is to find; it needs a return after the call.
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

// CheckLinear looks for an order of all operations that one process could have
// produced, key by key, for no longer than limit. porcupine.Unknown is no proof
// of anything.
func CheckLinear(ops []porcupine.Operation, limit time.Duration) *Linear {
	l := &Linear{ops: settle(ops)}
	l.Result, l.info = porcupine.CheckOperationsVerbose(oneKey, l.ops, limit)
	return l
}

// Visualize writes porcupine's picture of the history, an HTML file.
func (l *Linear) Visualize(path string) error {
	if err := porcupine.VisualizePath(oneKey, l.info, path); err != nil {
		return fmt.Errorf("picture of the history: %w", err)
	}
	return nil
}

// Explain names the keys whose history has no order, with the operations
// around the place where the longest order ends.
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

// shortestIllegal is the length of the shortest beginning, by the time of the
// call, that is not linearizable.
func shortestIllegal(part []porcupine.Operation) int {
	lo, hi := 0, len(part) // the first lo are legal, the first hi are not
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

// CheckRevisions returns what is wrong with the revisions of changes: over all
// keys, one that began after another was answered has the higher revision, and
// no two have the same.
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
	var newest porcupine.Operation // the latest call so far, in the order of revisions
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
