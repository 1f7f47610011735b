package cli

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/operator/term"
)

// dataDirectory makes a data directory with files.
func dataDirectory(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var stamps = regexp.MustCompile(`(?m)^\d{4}-\S+ `)

// TestLogsOfServices prints logs of a cluster that does not run.
func TestLogsOfServices(t *testing.T) {
	const member = "2026-01-02T03:04:05.000Z [INFO]  worker: hello: address=127.0.0.1:7401 epoch=1\n"
	web, db := "services/web/1/output.log", "services/database/10/output.log"
	everything := map[string]string{web: "\x1b[31mred\a\r\nend", db: "", "logs/127.0.0.1_7401.log": member}
	noServices := map[string]string{"logs/127.0.0.1_7401.log": member}
	noLogs := map[string]string{web: "w\n"}
	for _, c := range []struct {
		what  string
		files map[string]string
		off   bool // log.directory
		o     LogsOptions
		out   string
		notes string // a part of it
		err   string // parts of it, separated by |
		code  int
	}{
		{what: "all", files: everything, out: "[INFO]  worker: hello: address=127.0.0.1:7401 epoch=1\nweb/1       | \x1b[31mred\a\r\nweb/1       | end\n"},
		{what: "one service", files: everything, o: LogsOptions{Names: []string{"web"}}, out: "web/1 | \x1b[31mred\a\r\nweb/1 | end\n"},
		{what: "in a terminal", files: everything, o: LogsOptions{Names: []string{"web/1"}, Terminal: true}, out: "web/1 | red\ufffd\nweb/1 | end\n"},
		{
			what: "in colours", files: everything, o: LogsOptions{Names: []string{"web/1", "web"}, Terminal: true, Style: term.Style{Colour: true}},
			out: "\x1b[36mweb/1 |\x1b[0m \x1b[31mred\ufffd\x1b[0m\n\x1b[36mweb/1 |\x1b[0m end\n",
		},
		{what: "raw", files: everything, o: LogsOptions{Names: []string{"web"}, Raw: true}, out: "\x1b[31mred\a\r\nend"},
		{what: "raw, all", files: everything, o: LogsOptions{Raw: true}, err: "one instance", code: 2},
		{what: "raw, a member", files: noLogs, o: LogsOptions{Names: []string{"web", "127.0.0.1:7401"}, Raw: true}, err: "one instance", code: 2},
		{what: "a member", files: everything, o: LogsOptions{Names: []string{"127.0.0.1:7401"}}, out: "[INFO]  worker: hello: address=127.0.0.1:7401 epoch=1\n"},
		{what: "no services", files: noServices, out: "[INFO]  worker: hello: address=127.0.0.1:7401 epoch=1\n"},
		{what: "no logs yet", files: noLogs, out: "web/1 | w\n"},
		{what: "logs are off", files: noLogs, off: true, out: "web/1 | w\n", notes: "the logs of members are not shown: log.directory is off"},
		{what: "logs are off, one service", files: noLogs, off: true, o: LogsOptions{Names: []string{"web"}}, out: "web/1 | w\n"},
		{what: "nothing", off: true, err: "log.directory is off"},
		{what: "nothing yet", err: "nothing was logged there yet"},
		{what: "unknown member", files: everything, o: LogsOptions{Names: []string{"web", "127.0.0.1:1"}}, err: "127.0.0.1:1|127.0.0.1_7401"},
		{what: "unknown service", files: everything, o: LogsOptions{Names: []string{"web", "wed"}}, err: `"wed"|database/10, web/1|127.0.0.1_7401`},
		{what: "unknown instance", files: noLogs, o: LogsOptions{Names: []string{"web/2"}}, err: `"web/2"|the instances are web/1`},
		{what: "unknown, without services", files: noServices, o: LogsOptions{Names: []string{"web"}}, err: `"web"|no instance|127.0.0.1_7401`},
	} {
		cfg := &config.Config{DataDir: dataDirectory(t, c.files)}
		if c.off {
			cfg.Log.Directory = config.Off
		}
		c.o.Tail = -1
		var out, notes bytes.Buffer
		err := Logs(t.Context(), cfg, c.o, &out, &notes)
		if got := stamps.ReplaceAllString(out.String(), ""); got != c.out {
			t.Errorf("%s: got\n%q\nwant\n%q", c.what, got, c.out)
		}
		if !strings.Contains(notes.String(), c.notes) || c.notes == "" && notes.Len() > 0 {
			t.Errorf("%s: the notes are %q", c.what, notes.String())
		}
		if (err != nil) != (c.err != "") {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		for _, part := range strings.Split(c.err, "|") {
			if err != nil && !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q is not in %v", c.what, part, err)
			}
		}
		var coded *Error
		if errors.As(err, &coded); c.code != 0 && (coded == nil || int(coded.Code) != c.code) {
			t.Errorf("%s: %v has another exit code than %d", c.what, err, c.code)
		}
	}
}

// TestCompleteLogs offers services and instances when nothing runs.
func TestCompleteLogs(t *testing.T) {
	dir := dataDirectory(t, map[string]string{"services/web/1/output.log": "", "services/web/2/output.log": "", "services/db/1/output.log": ""})
	defaults, err := os.ReadFile("../../../config.hcl")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "db db/1 web web/1 web/2"},
		{[]string{"web/1", "db"}, "db/1 web web/2"},
	} {
		cmd := (&App{Defaults: defaults}).logsCommand()
		root := &cobra.Command{Use: "dynast"}
		root.AddCommand(cmd)
		var out bytes.Buffer
		root.SetOut(&out)
		root.SetArgs(append(append([]string{cobra.ShellCompRequestCmd, "logs", "--data-dir", dir}, c.args...), ""))
		if err := root.ExecuteContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, l := range strings.Split(out.String(), "\n") {
			if name, _, ok := strings.Cut(l, "\t"); ok {
				got = append(got, name)
			}
		}
		slices.Sort(got)
		if strings.Join(got, " ") != c.want {
			t.Errorf("after %v: got %v, want %s", c.args, got, c.want)
		}
	}
}
