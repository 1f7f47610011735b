package metrics

import (
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/dynast-io/dynast/shared/prove/testkit"
	rules "github.com/dynast-io/dynast/shared/rules/services"
)

// expressions returns all PromQL in a parsed file: the values of "expr", and the queries of the
// dashboard's variables.
func expressions(v any, out []string) []string {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			text, isText := x.(string)
			if isText && (k == "expr" || k == "query" && strings.Contains(text, "(")) {
				out = append(out, text)
			}
			out = expressions(x, out)
		}
	case []any:
		for _, x := range v {
			out = expressions(x, out)
		}
	}
	return out
}

var (
	quoted     = regexp.MustCompile(`"[^"]*"`)
	metricName = regexp.MustCompile(`\b(?:dynast|etcd|go|process|grpc)_[a-zA-Z0-9_:]+`)
	suffix     = regexp.MustCompile(`_(?:bucket|sum|count)$`)
)

// TestDashboardAndAlerts: the files parse, and docs/metrics.md explains every metric that they
// use. Another test compares that page with the served metrics.
func TestDashboardAndAlerts(t *testing.T) {
	raw, err := os.ReadFile("../../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := testkit.DocumentedMetrics(string(raw))
	maps.Copy(documented, testkit.DocumentedHostMetrics(string(raw)))
	for file, parse := range map[string]func([]byte, any) error{
		"../../../docs/grafana-dashboard.json": json.Unmarshal,
		"../../../docs/alerts.yml":             func(b []byte, v any) error { return yaml.UnmarshalStrict(b, v) },
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var parsed any
		if err := parse(text, &parsed); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all, used := expressions(parsed, nil), 0
		for _, e := range all {
			bare := quoted.ReplaceAllString(e, "")
			for _, pair := range []string{"()", "{}", "[]"} {
				if strings.Count(bare, pair[:1]) != strings.Count(bare, pair[1:]) {
					t.Errorf("%s: unbalanced %s in %s", file, pair, e)
				}
			}
			for _, name := range metricName.FindAllString(bare, -1) {
				used++
				if documented[name] == "" && documented[suffix.ReplaceAllString(name, "")] == "" {
					t.Errorf("%s: %s does not exist, in %s", file, name, e)
				}
			}
		}
		if used < 10 {
			t.Errorf("%s: only %d metrics found in %d expressions", file, used, len(all))
		}
	}
}

// A misspelt state would silence an alert. So the rules ask only for states that exist.
func TestStatesOfServices(t *testing.T) {
	asked := regexp.MustCompile(`dynast_service_instances\{[^}]*state="([^"]*)"`)
	raw, err := os.ReadFile("../../../docs/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	found := asked.FindAllStringSubmatch(string(raw), -1)
	if len(found) == 0 {
		t.Error("no rule asks for a state")
	}
	for _, m := range found {
		if !slices.Contains(rules.States, rules.State(m[1])) {
			t.Errorf("there is no state %q: %s", m[1], m[0])
		}
	}
}
