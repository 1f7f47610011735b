package cli

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The command reads files and those that they include, and tells mistakes of the input from
// files that cannot be read.
func TestImportCommand(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a[b]*")
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	run := func(args ...string) (string, error) {
		var out bytes.Buffer
		cmd := (&App{}).importCommand()
		cmd.SetArgs(args)
		cmd.SetOut(&out)
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		err := cmd.Execute()
		return out.String(), err
	}
	write("conf.d/b.ini", "[program:b]\ncommand=y\n")
	out, err := run(write("s.ini", "[program:a]\ncommand=x\n[include]\nfiles=conf.d/*.ini\n"))
	if err != nil || !strings.Contains(out, `service "a" {`) || !strings.Contains(out, `service "b" {`) {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := run(write("x.txt", "web: run\n"), "--as", "procfile"); err != nil || !strings.Contains(out, "exec run") {
		t.Errorf("%v\n%s", err, out)
	}
	var coded *Error
	if _, err := run(write("Procfile", "oops\n")); !errors.As(err, &coded) || coded.Code != ExitUsage || !strings.Contains(err.Error(), "Procfile:1: ") {
		t.Errorf("a mistake: %v", err)
	}
	if _, err := run(filepath.Join(dir, "gone")); !errors.As(err, &coded) || coded.Code == ExitUsage || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that does not exist: %v", err)
	}
}
