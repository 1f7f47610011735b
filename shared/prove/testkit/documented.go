package testkit

import "strings"

// hostMetrics is the heading below which docs/metrics.md explains what only an engine serves.
const hostMetrics = "\n## Several hosts\n"

// DocumentedMetrics reads the names of the metrics of a single host and what is said of them out of
// docs/metrics.md: the rows of its tables that begin with a name in backticks.
func DocumentedMetrics(markdown string) map[string]string {
	single, _, _ := strings.Cut(markdown, hostMetrics)
	return rows(single)
}

// DocumentedHostMetrics does the same for the metrics that only a host in a cluster of several hosts has.
func DocumentedHostMetrics(markdown string) map[string]string {
	_, several, _ := strings.Cut(markdown, hostMetrics)
	return rows(several)
}

func rows(markdown string) map[string]string {
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
