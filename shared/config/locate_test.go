package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// The flag decides before the variable, the variable before the files, and a file before the
// built-in configuration.
func TestLocate(t *testing.T) {
	dir := t.TempDir()
	local, system := filepath.Join(dir, "local.hcl"), filepath.Join(dir, "system.hcl")
	places := []Location{{File: local, Why: "local", searched: true}, {File: system, Why: "system", searched: true}}
	check := func(flag, env, file, why string) {
		t.Helper()
		if got := locate(flag, env, places); got.File != file || got.Why != why {
			t.Errorf("--config %q and DYNAST_CONFIG=%q: %+v, want %q because of %s", flag, env, got, file, why)
		}
	}
	check("", "", "", "no file was found")
	for _, path := range []string{system, local} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		check("", "", path, map[string]string{system: "system", local: "local"}[path])
	}
	check("a", "b", "a", "--config")
	check("", "b", "b", FileEnv)
	check("off", "b", "", "--config")
	check("", "off", "", FileEnv)
	if err := errors.Join(os.Remove(local), os.Mkdir(local, 0o700)); err != nil {
		t.Fatal(err)
	}
	check("", "", system, "system") // a directory is no configuration
}

// An error in a file that nobody named says why the file is read.
func TestErrorsSayWhyAFileIsRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "other.hcl")
	if err := os.WriteFile(file, []byte("storage \"raft\" {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for searched, want := range map[bool]bool{true: true, false: false} {
		_, err := Location{File: file, Why: "x", searched: searched}.Load(builtIn(t))
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), file+":1:1") || strings.Contains(err.Error(), "--config off") != want {
			t.Errorf("searched %v: %v", searched, err)
		}
	}
}

// A file that is used in every working directory must not name a directory that depends on it.
func TestTheFileOfTheHostNeedsAnAbsoluteDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "system.hcl")
	for _, x := range []struct {
		text, flag, env string
		ok              bool
	}{
		{"", "", "", false},
		{`data_dir = "data"`, "", "", false},
		{`data_dir = "/var/lib/dynast"`, "", "", true},
		{"", "data", "", true},
		{"", "", "data", true},
	} {
		if err := os.WriteFile(file, []byte(x.text), 0o600); err != nil {
			t.Fatal(err)
		}
		fs := pflag.NewFlagSet("up", pflag.ContinueOnError)
		flags := BindFlags(fs)
		if x.flag != "" {
			if err := fs.Parse([]string{"--data-dir", x.flag}); err != nil {
				t.Fatal(err)
			}
		}
		c, err := Location{File: file, searched: true}.Load(builtIn(t))
		if err == nil {
			err = errors.Join(flags.UseEnv(func(string) string { return x.env }), flags.Apply(c))
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := (Location{File: SystemFile}).Check(c); (err == nil) != x.ok || err != nil && !strings.Contains(err.Error(), "/var/lib/dynast") {
			t.Errorf("%+v: %v", x, err)
		}
		if err := (Location{File: file, Why: "--config"}).Check(c); err != nil {
			t.Errorf("another file: %v", err)
		}
	}
}

// The flag overrides the variable, and the variable the file. A later leader that reads the
// configuration again gets the same directory.
func TestDataDirFromTheEnvironment(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct{ flag, env, want, by string }{
		{"", "", "/file", "own.hcl:1:12"},
		{"", "env", filepath.Join(wd, "env"), DataDirEnv},
		{"/flag", "/env", "/flag", "--data-dir"},
	} {
		c, err := Parse("own.hcl", []byte(`data_dir = "/file"`), builtIn(t))
		if err != nil {
			t.Fatal(err)
		}
		fs := pflag.NewFlagSet("up", pflag.ContinueOnError)
		flags := BindFlags(fs)
		if x.flag != "" {
			if err := fs.Parse([]string{"--data-dir", x.flag}); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(flags.UseEnv(func(string) string { return x.env }), flags.Apply(c)); err != nil {
			t.Fatal(err)
		}
		if c.DataDir != x.want || c.sources["data_dir"] != x.by {
			t.Errorf("%+v: %s by %s", x, c.DataDir, c.sources["data_dir"])
		}
		if again, err := flags.Source("", c).Load(builtIn(t)); err != nil || x.by != "own.hcl:1:12" && again.DataDir != x.want {
			t.Errorf("%+v: read again: %v, %v", x, again, err)
		}
	}
	err = BindFlags(pflag.NewFlagSet("up", pflag.ContinueOnError)).UseEnv(func(string) string { return "~other/x" })
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), DataDirEnv+"=~other/x") {
		t.Errorf("a directory that cannot be: %v", err)
	}
}

// The printed configuration is a file that gives the same configuration.
func TestPrintedConfigurationIsTheSame(t *testing.T) {
	src := `
data_dir = "/srv/data"
followers = 3
log { level = "warn" }
service "web" {
  script = "echo $${HOME} %%{x}\nexit \u0007\b\\"
  dir = "/srv"
  env = { A = "1", B = "$${x}" }
  umask = "0022"
  hosts = ["a", "b"]
  listen "http" { address = "127.0.0.1:8080" }
  listen "s" { address = "unix:/run/s" }
  ready { delay = "2s" }
  alive {
    exec = ["./check", "\"x\""]
    interval = "10s"
  }
  reload { signal = "HUP" }
  limits { cpu = 1.5 }
  security { no_new_privileges = true }
}
service "job" {
  command = ["job"]
  dir = "/"
  hosts = "one"
  schedule = "*/5 * * * *"
}
service "n" {
  command = ["n"]
  dir = "/"
  ready { notify = true }
}
`
	src = strings.ReplaceAll(src, `\b`, `\u0008`)
	c, err := Parse("own.hcl", []byte(src), builtIn(t))
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.HCL()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse("printed.hcl", out, builtIn(t))
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if string(again.WithoutServices().Encode()) != string(c.WithoutServices().Encode()) {
		t.Errorf("other fields:\n%s", out)
	}
	for i := range c.Services {
		again.Services[i].Source = c.Services[i].Source
		if !reflect.DeepEqual(again.Services[i], c.Services[i]) {
			t.Errorf("got %+v, want %+v\n%s", again.Services[i], c.Services[i], out)
		}
	}
	for _, want := range []string{"# own.hcl:3:13", "# default", "# own.hcl:5\n", `"/srv/data"`} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%s is missing:\n%s", want, out)
		}
	}
}
