package main

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
)

// everyCommand calls f for each command, also for hidden ones.
func everyCommand(cmd *cobra.Command, f func(*cobra.Command)) {
	f(cmd)
	for _, child := range cmd.Commands() {
		everyCommand(child, f)
	}
}

// TestServerSettingsOnlyWhereTheyAct: a command offers the flag of a configuration field only if the
// field changes what the command does. Whoever adds such a flag has to add it to this table, too.
func TestServerSettingsOnlyWhereTheyAct(t *testing.T) {
	all := config.Fields()
	own := slices.DeleteFunc(config.Fields(), func(field string) bool { // chaos chooses these itself
		return slices.Contains([]string{"client.listen", "member.ports", "hosts.join", "hosts.token_file", "hosts.name", "hosts.address"}, field)
	})
	acts := map[string][]string{
		"dynast up":           all,
		"dynast check":        all,
		"dynast config print": all,
		"dynast config check": all,
		"dynast chaos":        own,
		"dynast join":         {"data_dir", "member.host", "log.level", "log.format", "log.directory", "log.max_size", "log.max_backups"},
		"dynast logs":         {"data_dir", "log.directory"},
	}
	known := map[string]bool{}
	everyCommand(newRoot(), func(cmd *cobra.Command) {
		path := cmd.CommandPath()
		want, listed := acts[path]
		known[path] = true
		if !listed {
			want = []string{"data_dir"} // or nothing
		}
		var got []string
		cmd.Flags().VisitAll(func(flag *pflag.Flag) {
			if field, ok := config.FieldOfFlag(flag.Name); ok {
				got = append(got, field)
				if !slices.Contains(want, field) {
					t.Errorf("%s has the flag --%s, which has no effect there", path, flag.Name)
				}
			}
		})
		if listed && len(got) != len(want) {
			t.Errorf("%s has flags for %v, want %v", path, got, want)
		}
	})
	for path := range maps.Keys(acts) {
		if !known[path] {
			t.Errorf("there is no command %q", path)
		}
	}
}

// fails runs a command line that must fail before it does anything, and returns its error.
func fails(t *testing.T, args ...string) string {
	t.Helper()
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(context.Background())
	if err == nil {
		t.Fatalf("%v is not refused", args)
	}
	return err.Error()
}

// TestFlagsWithoutEffectAreRefused: a flag that does nothing in a command, or not together with the
// other arguments, is an error that says why.
func TestFlagsWithoutEffectAreRefused(t *testing.T) {
	t.Chdir(t.TempDir())
	for line, want := range map[string]string{
		"tree --followers 3":                           "followers is a setting of the server: give the flag to 'dynast up'",
		"ps --log-level debug":                         "log.level is a setting of the server",
		"tree --nonsense":                              "tree: unknown flag: --nonsense",
		"join --leader 127.0.0.1:1 --store-quota 1GiB": "store.quota is a setting of the server",
		"bench idle --endpoints 127.0.0.1:1":           "unknown flag: --endpoints",
		"bench failover --pids 1":                      "unknown flag: --pids",
		"stop --wait 1s":                               "--wait needs the name of a service",
		"stop --remove":                                "--remove needs the name of a service",
		"stop web --timeout 1s":                        "--timeout cannot be used with the name of a service",
		"stop web --all":                               "--all cannot be used with the name of a service",
		"stop web --keep-services":                     "--keep-services cannot be used with the name of a service",
		"reload web --dry-run":                         "--dry-run is for the configuration",
		"hosts token --json":                           "--json needs --list",
		"hosts token --list --once":                    "--once is for a new token",
		"hosts token --revoke x --for 1h":              "--for is for a new token",
		"sim --seed 1 --first 2":                       "--first cannot be used with --seed",
		"sim --seed 1 --keep-going":                    "--keep-going cannot be used with --seed",
		"chaos --data-dir x --services 1":              "--services cannot be used with --data-dir",
		"chaos --data-dir x --followers 1":             "--followers cannot be used with --data-dir",
		"chaos --hosts 3 --services 1":                 "--services cannot be used with --hosts",
		"chaos --hosts-election 1s":                    "--hosts-election needs --hosts",
		"chaos --soak --duration 1s":                   "[duration soak]",
	} {
		if got := fails(t, strings.Fields(line)...); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

// TestClientsSayAtOnceThatNothingRuns: a command that would connect to the cluster says what 'dynast
// tree' says if nothing runs, and it tries no connection. Something else may use the address.
func TestClientsSayAtOnceThatNothingRuns(t *testing.T) {
	for _, variable := range []string{"ETCDCTL_ENDPOINTS", "ETCDCTL_DISCOVERY_SRV"} {
		t.Setenv(variable, "")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client := l.Addr().String()
	path := t.TempDir()
	dir, err := datadir.Open(path, true)
	if err != nil {
		t.Fatal(err)
	}
	boot, err := proc.BootID()
	if err != nil {
		t.Fatal(err)
	}
	if err := dir.WriteSuccession(datadir.Succession{ClusterID: 1, Epoch: 1, Slot: 1, Client: client, BootID: boot, At: time.Now(),
		Leader: datadir.Leader{Address: "127.0.0.1:7400", PID: 1 << 30, StartTime: 1}}); err != nil {
		t.Fatal(err)
	}
	for _, dataDir := range []string{path, filepath.Join(path, "missing")} {
		want := fails(t, "tree", "--data-dir", dataDir)
		if !strings.Contains(want, "'dynast up'") {
			t.Errorf("tree says %q", want)
		}
		for _, line := range []string{
			"put a b", "get a", "del a", "snapshot save f", "ctl get a", "ctl lease list", "ctl --endpoints " + client + " get a",
			"bench put", "bench memory", "bench failover",
		} {
			args := append(strings.Fields(line), "--data-dir", dataDir)
			if strings.Contains(line, "--endpoints") && dataDir != path {
				continue // there, the address is that of another cluster
			}
			if got := fails(t, args...); got != want {
				t.Errorf("%s says %q, want %q", line, got, want)
			}
		}
	}
	own, err := net.Dial("tcp", client)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	first, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if first.RemoteAddr().String() != own.LocalAddr().String() {
		t.Error("a command connected to " + client)
	}
}

// TestHelpOfEveryCommand: the help of a command fits on 80 columns, has an example, and speaks of dynast.
// The commands of dynast itself are in groups.
func TestHelpOfEveryCommand(t *testing.T) {
	everyCommand(newRoot(), func(cmd *cobra.Command) {
		path := cmd.CommandPath()
		if cmd.Hidden {
			return
		}
		var out bytes.Buffer
		cmd.SetOut(&out)
		if err := cmd.Help(); err != nil {
			t.Error(err)
		}
		text := out.String()
		for line := range strings.Lines(text) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
				t.Errorf("%s --help has a line of %d columns: %s", path, n, line)
			}
		}
		ofCtl := strings.HasPrefix(path, "dynast ctl ") // etcdctl's own texts, mostly without an example
		generated := strings.HasPrefix(path, "dynast completion") || path == "dynast help" || path == "dynast"
		if !ofCtl && !generated && !strings.Contains(text, "Examples:\n") {
			t.Errorf("%s --help has no example", path)
		}
		if strings.Contains(strings.ReplaceAll(text, "/etcdctl-check-", ""), "etcdctl") && !slices.Contains([]string{"dynast ctl", "dynast ctl version", "dynast"} /* they say what ctl is */, path) {
			t.Errorf("%s --help speaks of etcdctl:\n%s", path, text)
		}
		if cmd.HasParent() && !cmd.Parent().HasParent() && cmd.GroupID == "" {
			t.Errorf("%s is in no group", path)
		}
	})
}

// TestDefaultsInTheHelp: the flags of configuration fields show the built-in values.
func TestDefaultsInTheHelp(t *testing.T) {
	root := newRoot()
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetArgs([]string{"up", "--help"})
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{"(default 127.0.0.1:2379)", "(default dynast-data)", "(default 2GiB)", "(default 250ms)"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
}

// TestUnknownCommands: the error names the command that the user may have meant.
func TestUnknownCommands(t *testing.T) {
	for line, want := range map[string]string{
		"stat":         "unknown command \"stat\": did you mean 'dynast status'?",
		"health":       "did you mean 'dynast status'?",
		"terminate":    "did you mean 'dynast kill'?",
		"serve":        "did you mean 'dynast up'?",
		"set a b":      "did you mean 'dynast put'?",
		"watch":        "did you mean 'dynast bench watch' or 'dynast ctl watch'?",
		"token":        "did you mean 'dynast hosts token'?",
		"hosts tokens": "hosts: unknown command \"tokens\": did you mean 'dynast hosts token'?",
		"nonsense":     "unknown command \"nonsense\": 'dynast --help' lists all",
		"start":        "'dynast up' starts dynast itself",
		"restart":      "'dynast upgrade' replaces all processes",
	} {
		if got := fails(t, strings.Fields(line)...); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

// TestManualPagesAreComplete: each command has a page with all sections, and the page of the
// configuration file has every field.
func TestManualPagesAreComplete(t *testing.T) {
	dir := t.TempDir()
	root := newRoot()
	root.SetArgs([]string{"man", dir})
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	everyCommand(newRoot(), func(cmd *cobra.Command) {
		if !cmd.IsAvailableCommand() && cmd.HasParent() {
			return
		}
		raw, err := os.ReadFile(filepath.Join(dir, strings.ReplaceAll(cmd.CommandPath(), " ", "-")+".1"))
		if err != nil {
			t.Error(err)
			return
		}
		want := []string{".TH ", ".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH OPTIONS", ".SH EXIT STATUS", ".SH FILES"}
		if cmd.HasExample() {
			want = append(want, ".SH EXAMPLES")
		}
		for _, section := range want {
			if !strings.Contains(string(raw), section) {
				t.Errorf("%s: the page has no %s", cmd.CommandPath(), section)
			}
		}
	})
	raw, err := os.ReadFile(filepath.Join(dir, "dynast-config.5"))
	if err != nil {
		t.Fatal(err)
	}
	page := strings.ReplaceAll(string(raw), `\`, "")
	for _, want := range append(config.Fields(), ".SH NAME", ".SH FILES", ".SH EXAMPLES", "service \"web\" {") {
		if !strings.Contains(page, want) {
			t.Errorf("dynast-config(5) does not have %s", want)
		}
	}
}

// TestVersion: --version and -v print what 'dynast version' prints.
func TestVersion(t *testing.T) {
	line := func(args ...string) string {
		root := newRoot()
		var out bytes.Buffer
		root.SetOut(&out)
		root.SetArgs(args)
		if err := root.Execute(); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	want := line("version")
	if !strings.HasPrefix(want, "dynast ") || line("--version") != want || line("-v") != want {
		t.Errorf("version: %q, --version: %q, -v: %q", want, line("--version"), line("-v"))
	}
	var v struct {
		Schema                int
		Version, Go, OS, Arch string
	}
	if err := json.Unmarshal([]byte(line("version", "--json")), &v); err != nil || v.Schema != 1 || v.Version == "" || v.Go == "" || v.OS != "linux" || v.Arch == "" {
		t.Errorf("version --json: %+v, %v", v, err)
	}
}
