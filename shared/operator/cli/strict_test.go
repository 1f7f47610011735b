package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// TestStrict: an error about the command line names the command, what was given, and what the
// command wants.
func TestStrict(t *testing.T) {
	run := func(args ...string) string {
		root := &cobra.Command{Use: "dynast", SilenceErrors: true, SilenceUsage: true}
		root.SetOut(new(bytes.Buffer))
		nothing := func(*cobra.Command, []string) error { return nil }
		up := &cobra.Command{Use: "up", Args: cobra.NoArgs, RunE: nothing}
		var d time.Duration
		up.Flags().DurationVar(&d, "timeout", 0, "")
		up.Flags().Bool("json", false, "")
		up.Flags().Int("seeds", 0, "")
		group := &cobra.Command{Use: "bench"}
		group.AddCommand(&cobra.Command{Use: "failover", Args: cobra.ExactArgs(1), RunE: nothing})
		root.AddCommand(up, group)
		Strict(root)
		root.SetArgs(args)
		if err := root.Execute(); err != nil {
			return err.Error()
		}
		return ""
	}
	for line, want := range map[string]string{
		"up":                 "",
		"bench":              "",
		"bench failover x":   "",
		"up extra":           `up: unexpected argument "extra": the command takes no arguments; usage: dynast up`,
		"up --timeout abc":   `up: invalid argument "abc" for "--timeout" flag: invalid duration "abc"; want a duration with its unit, for example 30s`,
		"up --json=maybe":    `up: invalid argument "maybe" for "--json" flag: invalid syntax; want true or false`,
		"up --seeds x":       `up: invalid argument "x" for "--seeds" flag: invalid syntax; want a whole number`,
		"up --nonsense":      "up: unknown flag: --nonsense",
		"bench nonsense":     `bench: unknown command "nonsense": must be one of failover`,
		"bench failover":     "bench failover: the command accepts 1 argument(s), received 0 (none given); usage: dynast bench failover",
		"bench failover a b": "bench failover: the command accepts 1 argument(s), received 2 (a, b); usage: dynast bench failover",
	} {
		if got := run(strings.Fields(line)...); got != want && !(want != "" && strings.HasPrefix(got, want)) {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}
