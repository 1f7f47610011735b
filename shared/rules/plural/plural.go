// Package plural writes numbers with nouns, for messages.
package plural

import (
	"fmt"
	"strings"
)

// Count returns a number with its noun, which is given in the singular: "1 service", "2 services",
// "0 processes", "3 entries".
func Count[N ~int | ~int64 | ~uint32 | ~uint64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	stem, y := strings.CutSuffix(noun, "y")
	switch {
	case y && stem != "" && !strings.ContainsAny(stem[len(stem)-1:], "aeou"):
		noun = stem + "ies"
	case strings.HasSuffix(noun, "s"):
		noun += "es"
	default:
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// Are returns the verb for a number of things: "is" or "are".
func Are[N ~int | ~int64 | ~uint32 | ~uint64](n N) string {
	if n == 1 {
		return "is"
	}
	return "are"
}
