package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dynast-io/dynast/shared/config"
)

func TestCheck(t *testing.T) {
	defaults, err := os.ReadFile("../../../config.hcl")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "own.hcl")
	for name, tc := range map[string]struct {
		src, out string
		errs     []string
	}{
		"none": {"", "ok: 0 services\n", nil},
		"one":  {"service \"a\" {\n command = [\"sh\"]\n instances = 3\n}", "ok: 1 service\n  a: sh, 3 instances, restart always\n", nil},
		"good": {"service \"a\" { command = [\"sh\"] }\nservice \"b\" {\n script = \"x\"\n schedule = \"@daily\"\n}",
			"ok: 2 services\n  a: sh, 1 instance, restart always\n  b: script, 1 instance, restart never, schedule @daily\n", nil},
		"host": {"service \"a\" { command = [\"./no\"] }\nservice \"b\" {\n script = \"x\"\n dir = \"/nowhere\"\n}",
			"", []string{file + ":1: a.command = ", file + ":2: b.dir = /nowhere"}},
		"invalid": {"service \"a\" { instances = 2 }\nservice \"b\" { script = \"\" }", "", []string{file + ":1:9: a: there is no program", file + ":2:"}},
	} {
		if err := os.WriteFile(file, []byte(tc.src), 0o600); err != nil {
			t.Fatal(err)
		}
		app := &App{Defaults: defaults}
		cmd := app.checkCommand()
		if err := cmd.ParseFlags([]string{"--config", file}); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		cfg, err := config.Load(file, defaults)
		if err == nil {
			err = Check(cfg, &out)
		} else {
			err = cmd.RunE(cmd, nil)
		}
		if out.String() != tc.out {
			t.Errorf("%s: got %q, want %q", name, out.String(), tc.out)
		}
		var coded *Error
		if (tc.errs != nil) != (err != nil) || err != nil && (!errors.As(err, &coded) || coded.Code != ExitUsage) {
			t.Errorf("%s: got %v", name, err)
		}
		for _, want := range tc.errs {
			if err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %q", name, err, want)
			}
		}
	}
}
