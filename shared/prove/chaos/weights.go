package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// Weights is the relative frequency of each kind of fault. A kind that is missing or has weight 0
// is not injected.
type Weights map[string]int

// maxWeight keeps sums far from any limit.
const maxWeight = 1000

// DefaultWeights are the weights for an own cluster. The disk is not filled by default, because
// that needs root and puts the data into memory.
func DefaultWeights() Weights {
	return Weights{
		KillLeader: 5, KillFollower: 3, KillHeir: 2, KillSeveral: 2, KillAll: 1, StopContinue: 3,
		KillInTakeover: 3, RestartAll: 1, CorruptFollower: 2, Promote: 2,
	}
}

// SignalWeights are the weights for a running cluster: only signals and hand-overs. They never
// affect all processes at once, because the run could not start that cluster again.
func SignalWeights() Weights {
	return Weights{KillLeader: 5, KillFollower: 3, KillHeir: 2, StopContinue: 3, KillInTakeover: 3, Promote: 2}
}

// ServiceWeights are the additional weights for an own cluster with services.
func ServiceWeights() Weights {
	return Weights{
		KillProgram: 4, KillTree: 2, KillInSpawn: 4, KillBetween: 3, KillAllPrograms: 2, StopProgram: 2, BurstOutput: 2, RestartService: 3,
	}
}

// ParseWeights parses "kind=weight,kind,...". A kind without a weight has weight 1. The kind
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
			return nil, fmt.Errorf("unknown fault %q: must be one of default, %s", name, strings.Join(kinds(), ", "))
		}
		n := 1
		if given {
			var err error
			if n, err = strconv.Atoi(number); err != nil || n < 0 || n > maxWeight {
				return nil, fmt.Errorf("fault %s: invalid weight %q: must be a number from 0 to %d", name, number, maxWeight)
			}
		}
		w[name] = n
	}
	if w.sum() == 0 {
		return nil, fmt.Errorf("invalid faults %q: at least one must have a weight above 0", text)
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

// pick draws a kind. The same random source gives the same kinds.
func (w Weights) pick(rng *rand.Rand) string {
	n := rng.IntN(w.sum())
	for _, k := range kinds() {
		if n -= w[k]; n < 0 {
			return k
		}
	}
	panic("chaos: weights do not add up")
}

// String returns the form that ParseWeights parses.
func (w Weights) String() string {
	var parts []string
	for _, k := range kinds() {
		if w[k] > 0 {
			parts = append(parts, fmt.Sprintf("%s=%d", k, w[k]))
		}
	}
	return strings.Join(parts, ",")
}
