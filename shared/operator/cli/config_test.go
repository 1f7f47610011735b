package cli

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/dynast-io/dynast/shared/config"
)

// inDirectory runs a command in an empty working directory without variables of the developer. It
// returns what the command prints.
func inDirectory(t *testing.T, files map[string]string) func(args ...string) (string, error) {
	t.Helper()
	defaults, err := os.ReadFile("../../../config.hcl")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(config.FileEnv, "")
	t.Setenv(config.DataDirEnv, "")
	t.Chdir(t.TempDir())
	for name, text := range files {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return func(args ...string) (string, error) {
		t.Helper()
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		printed := make(chan string)
		go func() {
			var out bytes.Buffer
			_, _ = io.Copy(&out, r)
			printed <- out.String()
		}()
		stdout := os.Stdout
		os.Stdout = w
		root := &cobra.Command{Use: "dynast", SilenceErrors: true, SilenceUsage: true}
		root.AddCommand((&App{Defaults: defaults}).Commands()...)
		Strict(root)
		root.SetArgs(args)
		err = root.Execute()
		os.Stdout = stdout
		_ = w.Close()
		return <-printed, err
	}
}

// The file in the working directory is found, and the output says where each value comes from.
func TestConfigPrint(t *testing.T) {
	run := inDirectory(t, map[string]string{"config.hcl": "followers = 4\n", "other.hcl": "followers = 5\n"})
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	prints := func(wants []string, args ...string) string {
		t.Helper()
		out, err := run(append([]string{"config", "print"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range wants {
			if !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
				t.Errorf("%v: %q is missing:\n%s", args, want, out)
			}
		}
		return out
	}
	out := prints([]string{"from config.hcl (in the working directory)", "followers = 4 # config.hcl:1:13", "min_sync = 1 # default",
		`data_dir = "` + filepath.Join(wd, "dynast-data") + `" # default`})
	prints([]string{"from the built-in configuration (--config)", "followers = 2 # default"}, "--config", "off")
	t.Setenv(config.FileEnv, "other.hcl")
	prints([]string{"from other.hcl (DYNAST_CONFIG)", "followers = 5"})
	t.Setenv(config.DataDirEnv, "/env")
	prints([]string{`data_dir = "/env" # DYNAST_DATA_DIR`})
	prints([]string{`data_dir = "/flag" # --data-dir`, "followers = 3 # --followers"}, "--data-dir", "/flag", "--followers", "3")

	// What is printed is a valid file with the same values.
	if err := os.WriteFile("printed.hcl", []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := run("config", "check", "printed.hcl"); err != nil || !strings.Contains(out, "printed.hcl (--config)\nok: 0 services") {
		t.Errorf("the printed file: %v: %s", err, out)
	}
}

// A mistake is reported with its line and the exit code for wrong configurations.
func TestConfigCheck(t *testing.T) {
	run := inDirectory(t, map[string]string{"bad.hcl": "\nfollowers = 99\nlog {\n  level = \"loud\"\n}\n", "config.hcl": ""})
	if out, err := run("config", "check"); err != nil || !strings.Contains(out, "config.hcl (in the working directory)") {
		t.Errorf("%v: %s", err, out)
	}
	_, err := run("config", "check", "bad.hcl")
	var coded *Error
	if !errors.As(err, &coded) || coded.Code != ExitUsage || !strings.Contains(err.Error(), "bad.hcl:2:13: followers") || !strings.Contains(err.Error(), "bad.hcl:4:11: log.level") {
		t.Errorf("a wrong file: %v", err)
	}
	if _, err := run("config", "check", "--config", "bad.hcl", "config.hcl"); err == nil || !strings.Contains(err.Error(), "give one of them") {
		t.Errorf("two files: %v", err)
	}
	if _, err := run("config", "check", "missing.hcl"); !errors.As(err, &coded) || coded.Code != ExitUsage {
		t.Errorf("a missing file: %v", err)
	}
}
