package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// Weights says how often each kind of fault is injected, in relation to the
// others. A kind that is missing, or has 0, is not.
type Weights map[string]int

// maxWeight keeps sums far from any limit.
const maxWeight = 1000

// DefaultWeights are those of an own cluster. The disk is not filled: that
// needs root, and puts the data into memory.
func DefaultWeights() Weights {
	return Weights{
		KillLeader: 5, KillFollower: 3, KillHeir: 2, KillSeveral: 2, KillAll: 1, StopContinue: 3,
		KillInTakeover: 3, RestartAll: 1, CorruptFollower: 2, Promote: 2,
	}
}

// SignalWeights are those of a running cluster: nothing but signals and
// hand-overs, and never to all at once, since nobody here could start it again.
func SignalWeights() Weights {
	return Weights{KillLeader: 5, KillFollower: 3, KillHeir: 2, StopContinue: 3, KillInTakeover: 3, Promote: 2}
}

// ParseWeights reads "kind=weight,kind,...": without a weight it is 1. The kind
// "default" stands for all of def.
func ParseWeights(text string, def Weights) (Weights, error) {
	w := Weights{}
	for _, part := range strings.Split(text, ",") {
		name, number, given := strings.Cut(strings.TrimSpace(part), "=")
		if name == "default" && !given {
			for k, n := range def {
				w[k] = n
			}
			continue
		}
		if !slices.Contains(kinds(), name) {
			return nil, fmt.Errorf("there is no fault %q; there are default, %s", name, strings.Join(kinds(), ", "))
		}
		n := 1
		if given {
			var err error
			if n, err = strconv.Atoi(number); err != nil || n < 0 || n > maxWeight {
				return nil, fmt.Errorf("fault %s: the weight %q is no number from 0 to %d", name, number, maxWeight)
			}
		}
		w[name] = n
	}
	if w.sum() == 0 {
		return nil, fmt.Errorf("the faults %q have no weight: nothing would happen", text)
	}
	return w, nil
}

func (w Weights) sum() int {
	sum := 0
	for _, n := range w {
		sum += n
	}
	return sum
}

// pick draws a kind; the same source draws the same.
func (w Weights) pick(rng *rand.Rand) string {
	n := rng.IntN(w.sum())
	for _, k := range kinds() {
		if n -= w[k]; n < 0 {
			return k
		}
	}
	panic("chaos: weights do not add up")
}

// String is what ParseWeights reads.
func (w Weights) String() string {
	var parts []string
	for _, k := range kinds() {
		if w[k] > 0 {
			parts = append(parts, fmt.Sprintf("%s=%d", k, w[k]))
		}
	}
	return strings.Join(parts, ",")
}
