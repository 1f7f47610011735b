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

func parsed(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("mine.hcl", []byte(text), builtIn(t))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestMerge(t *testing.T) {
	running := parsed(t, "followers = 3\nlog { level = \"warn\" }")
	next := parsed(t, "followers = 4\nmember { ports = \"8000-8099\" }\nstore { auto_compaction = \"1h\" }")
	merged, changed, restart, err := running.Merge(next)
	if err != nil {
		t.Fatal(err)
	}
	want := []Change{{"followers", "3", "4"}, {"store.auto_compaction", "off", "1h"}, {"log.level", "warn", "info"}}
	if !reflect.DeepEqual(changed, want) {
		t.Errorf("changed %v, want %v", changed, want)
	}
	if want := []Change{{"member.ports", "7400-7499", "8000-8099"}}; !reflect.DeepEqual(restart, want) {
		t.Errorf("needs a restart: %v, want %v", restart, want)
	}
	if merged.Followers != 4 || merged.Log.Level != "info" || merged.Member.Ports.First != 7400 || running.Followers != 3 {
		t.Errorf("merged %+v, running %+v", merged, running)
	}
	if _, changed, restart, err := merged.Merge(next); err != nil || len(changed) != 0 || len(restart) != 1 {
		t.Errorf("again: %v, %v, %v", changed, restart, err)
	}
}

// Changes that fit only together with a field that needs a restart are refused as a whole.
func TestMergeRefuses(t *testing.T) {
	running := parsed(t, "followers = 2\nmember { ports = \"7400-7402\" }")
	next := parsed(t, "followers = 5\nlog { level = \"debug\" }\nmember { ports = \"7400-7499\" }")
	if _, _, _, err := running.Merge(next); err == nil || !strings.Contains(err.Error(), "mine.hcl:1:13") || !errors.Is(err, ErrInvalid) {
		t.Errorf("%v", err)
	}
}

// TLS cannot be switched on or off, because connected clients speak the other protocol.
func TestMergeKeepsTLSOnOrOff(t *testing.T) {
	plain, secure := parsed(t, ""), parsed(t, `client {
  cert_file = "/a"
  key_file = "/b"
}`)
	for _, way := range [][2]*Config{{plain, secure}, {secure, plain}} {
		merged, changed, restart, err := way[0].Merge(way[1])
		if err != nil || len(changed) != 0 || len(restart) != 2 || merged.Client != way[0].Client {
			t.Errorf("%v, %v, %v", changed, restart, err)
		}
	}
	other := parsed(t, `client {
  cert_file = "/c"
  key_file = "/b"
  client_ca_file = "/d"
}`)
	if merged, changed, _, err := secure.Merge(other); err != nil || len(changed) != 2 || merged.Client != other.Client {
		t.Errorf("%v, %v", changed, err)
	}
}

func TestLiveFieldsExist(t *testing.T) {
	for path := range reloadable {
		if byPath[path] == nil {
			t.Errorf("%s is no field", path)
		}
	}
}

// Another process reads the same configuration, with the flags of the command line over it.
func TestSource(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mine.hcl")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("followers = 3")
	fs := pflag.NewFlagSet("up", pflag.ContinueOnError)
	flags := BindFlags(fs)
	if err := fs.Parse([]string{"--data-dir", "here", "--log-level", "debug"}); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file, builtIn(t))
	if err == nil {
		err = flags.Apply(c)
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := ParseSource(flags.Source(file, c).String())
	if err != nil {
		t.Fatal(err)
	}
	base := builtIn(t)
	t.Chdir(t.TempDir()) // where "here" would be another place
	again, err := s.Load(base)
	if err != nil || string(again.Encode()) != string(c.Encode()) {
		t.Errorf("%v\n%s\n%s", err, again.Encode(), c.Encode())
	}
	write("followers = 4\nlog { level = \"error\" }")
	if again, err = s.Load(base); err != nil || again.Followers != 4 || again.Log.Level != "debug" {
		t.Errorf("changed: %+v, %v", again, err)
	}
	write("followers = 4\nlog { level = \"loud\" }")
	if _, err = s.Load(base); err == nil || !strings.Contains(err.Error(), file+":2:15") {
		t.Errorf("a bad file: %v", err)
	}
	if _, err := ParseSource("{"); !errors.Is(err, ErrInvalid) {
		t.Errorf("damaged: %v", err)
	}
}
