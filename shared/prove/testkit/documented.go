package testkit

import "strings"

// DocumentedMetrics reads the names of metrics and what is said of them out of
// docs/metrics.md: the rows of its tables that begin with a name in backticks.
func DocumentedMetrics(markdown string) map[string]string {
	out := map[string]string{}
	for _, line := range strings.Split(markdown, "\n") {
		rest, ok := strings.CutPrefix(line, "| `")
		if !ok {
			continue
		}
		name, rest, ok := strings.Cut(rest, "`")
		cells := strings.Split(strings.Trim(rest, " |"), "|")
		if ok && len(cells) > 0 {
			out[name] = strings.TrimSpace(cells[len(cells)-1])
		}
	}
	return out
}
