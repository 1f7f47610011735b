package config

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// builtIn is config.hcl, as main embeds it.
func builtIn(t testing.TB) []byte {
	t.Helper()
	src, err := os.ReadFile("../../config.hcl")
	if err != nil {
		t.Fatal(err)
	}
	return src
}

func mustParse(t testing.TB, src string) *Config {
	t.Helper()
	c, err := Parse("own.hcl", []byte(src), builtIn(t))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaults(t *testing.T) {
	c, err := Load("", builtIn(t))
	if err != nil {
		t.Fatal(err)
	}
	c.sources, c.dataDirText = nil, ""
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		DataDir:   filepath.Join(wd, "dynast-data"),
		Followers: 2,
		Client: Client{Listen: "127.0.0.1:2379", AuthToken: "simple", MaxConnections: 12000, MaxStreams: 10000, MaxRequest: 1536 * KiB,
			MaxTxnOps: 128, WatchProgressInterval: 10 * time.Minute},
		Dashboard:   Dashboard{Listen: "127.0.0.1:2381"},
		Member:      Member{Host: "127.0.0.1", Ports: PortRange{7400, 7499}},
		Heartbeat:   Heartbeat{Interval: 250 * time.Millisecond, Timeout: time.Second},
		Replication: Replication{MinSync: 1, QueueRequests: 10000, QueueBytes: 64 * MiB},
		Store:       Store{Quota: 2 * GiB, DiskReserve: 64 * MiB, CommitInterval: time.Second, CompareInterval: 10 * time.Minute},
		Spawn:       Spawn{Timeout: 10 * time.Second},
		Hosts:       Hosts{Election: 500 * time.Millisecond, Heartbeat: 50 * time.Millisecond, SnapshotCount: 10000},
		Log:         Log{Level: "info", Format: "text", MaxSize: 16 * MiB, MaxBackups: 3},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

// full gives every field a value other than its default.
const full = `
data_dir  = "/srv/dynast"
followers = 4
client {
  listen         = "[::1]:12379"
  cert_file      = "/srv/tls/server.crt"
  key_file       = "/srv/tls/server.key"
  client_ca_file = "/srv/tls/ca.crt"
  auth_token     = "jwt,sign-method=HS256,priv-key=/srv/key,ttl=1m"
  max_connections = 500
  max_streams     = 100
  max_request     = "2MiB"
  max_txn_ops     = 256
  watch_progress_interval = "5s"
}
dashboard {
  listen     = "off"
  token_file = "/srv/token"
}
member {
  host  = "127.0.0.2"
  ports = "9990-10009"
}
heartbeat {
  interval = "50ms"
  timeout  = "1m30s"
}
replication {
  min_sync       = 2
  queue_requests = 7
  queue_bytes    = "3MiB"
}
store {
  quota           = "8GiB"
  disk_reserve    = "100MiB"
  commit_interval = "250ms"
  auto_compaction = "1000"
  compare_interval = "1h"
}
spawn { timeout = "3s" }
hosts {
  join           = "10.0.0.1:2380"
  token_file     = "/srv/join"
  address        = "10.0.0.2:2380"
  name           = "two"
  election       = "1s"
  heartbeat      = "100ms"
  snapshot_count = 5000
}
log {
  level       = "debug"
  format      = "json"
  directory   = "/var/log/dynast"
  max_size    = "1GiB"
  max_backups = 9
}
`

func TestEveryFieldIsRead(t *testing.T) {
	c, base := mustParse(t, full), mustParse(t, "")
	var walk func(a, b reflect.Value, path string) int
	walk = func(a, b reflect.Value, path string) int {
		if a.Kind() != reflect.Struct || a.Type() == reflect.TypeFor[PortRange]() || a.Type() == reflect.TypeFor[AutoCompaction]() {
			if a.Interface() == b.Interface() {
				t.Errorf("%s is not read", path)
			}
			return 1
		}
		n := 0
		for i := range a.NumField() {
			if f := a.Type().Field(i); f.IsExported() && f.Name != "Services" { // see TestEveryServiceFieldIsRead
				n += walk(a.Field(i), b.Field(i), path+"."+f.Name)
			}
		}
		return n
	}
	if n := walk(reflect.ValueOf(*c), reflect.ValueOf(*base), "Config"); n != len(fields) {
		t.Errorf("Config has %d fields, the table %d", n, len(fields))
	}
}

// An own file changes only the fields that it sets.
func TestOwnFileOverDefaults(t *testing.T) {
	c, want := mustParse(t, `heartbeat { timeout = "2s" }`), mustParse(t, "")
	want.Heartbeat.Timeout = 2 * time.Second
	if !bytes.Equal(c.Encode(), want.Encode()) {
		t.Errorf("got  %s\nwant %s", c.Encode(), want.Encode())
	}
}

// config.hcl explains each field, with its unit and its default.
func TestConfigFileExplainsEveryField(t *testing.T) {
	lines := strings.Split(string(builtIn(t)), "\n")
	attribute := regexp.MustCompile(`^\s*(\w+) = (.*)$`)
	seen := 0
	for i, line := range lines {
		m := attribute.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		seen++
		comment := ""
		for j := i - 1; j >= 0 && strings.HasPrefix(strings.TrimSpace(lines[j]), "#"); j-- {
			comment = strings.TrimLeft(lines[j], " #") + " " + comment
		}
		_, def, ok := strings.Cut(comment, "Default: ")
		if !ok || !strings.Contains(comment, "Unit: ") {
			t.Errorf("line %d: %s has no unit or no default in its comment", i+1, m[1])
		}
		value := strings.Trim(m[2], `"`)
		if value == "" {
			value = "empty"
		}
		if !strings.HasPrefix(def, value) {
			t.Errorf("line %d: %s is %s, its comment says %q", i+1, m[1], value, def)
		}
	}
	if seen != len(fields) {
		t.Errorf("config.hcl gives %d fields, the table has %d", seen, len(fields))
	}
}

func TestDefaultsMustBeComplete(t *testing.T) {
	src := bytes.Replace(builtIn(t), []byte("followers = 2"), nil, 1)
	_, err := Parse("", nil, src)
	if err == nil || !strings.Contains(err.Error(), "the field followers is missing") {
		t.Errorf("got %v", err)
	}
}

func TestPaths(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		"~/d": home + "/d", "~": home, "x/../d": wd + "/d", "./~d": wd + "/~d", "/a//b/": "/a/b",
	} {
		if got := mustParse(t, `data_dir = "`+in+`"`).DataDir; got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

func TestEncodeDecode(t *testing.T) {
	for _, src := range []string{"", full} {
		c := mustParse(t, src)
		d, err := Decode(c.Encode())
		if err != nil {
			t.Fatal(err)
		}
		c.sources, c.dataDirText = nil, ""
		if !reflect.DeepEqual(c, d) {
			t.Errorf("got  %+v\nwant %+v", d, c)
		}
	}
}

func TestDecodeIsStrict(t *testing.T) {
	good := string(mustParse(t, "").Encode())
	for name, tc := range map[string]struct{ src, want string }{
		"empty":     {"", "EOF"},
		"list":      {"[]", "in place of an object"},
		"cut":       {good[:len(good)-1], "EOF"},
		"unknown":   {strings.Replace(good, `"followers"`, `"folowers"`, 1), `unknown field "folowers"`},
		"missing":   {strings.Replace(good, `"followers":"2",`, "", 1), "the field followers is missing"},
		"twice":     {strings.Replace(good, `"followers":"2"`, `"followers":"2","followers":"3"`, 1), "followers is given twice"},
		"number":    {strings.Replace(good, `"followers":"2"`, `"followers":2`, 1), "followers"},
		"bad value": {strings.Replace(good, `"followers":"2"`, `"followers":"99"`, 1), "too large"},
		"conflict":  {strings.Replace(good, `"followers":"2"`, `"followers":"0"`, 1), "min_sync = 1 cannot be reached"},
		"trailing":  {good + "}", "text after the end"},
	} {
		_, err := Decode([]byte(tc.src))
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestFlagsOverrideTheFile(t *testing.T) {
	fs := pflag.NewFlagSet("up", pflag.ContinueOnError)
	flags := BindFlags(fs)
	if err := fs.Parse([]string{"--followers=3", "--heartbeat-timeout", "5s", "--log-directory", "", "--store-quota=4GiB"}); err != nil {
		t.Fatal(err)
	}
	c, want := mustParse(t, full), mustParse(t, full)
	if err := flags.Apply(c); err != nil {
		t.Fatal(err)
	}
	want.Followers, want.Heartbeat.Timeout, want.Log.Directory, want.Store.Quota = 3, 5*time.Second, "", 4*GiB
	if !bytes.Equal(c.Encode(), want.Encode()) {
		t.Errorf("got  %s\nwant %s", c.Encode(), want.Encode())
	}
	for _, f := range fields {
		if fs.Lookup(FlagName(f.path)) == nil {
			t.Errorf("%s has no flag", f.path)
		}
	}
}

func TestBadFlags(t *testing.T) {
	for name, tc := range map[string]struct{ args, want string }{
		"unit":     {"--heartbeat-timeout=5", `"--heartbeat-timeout" flag: the unit is missing; want a duration with its unit (ns, us, ms, s, m, h) from 50ms to 10m, for example "1s"`},
		"number":   {"--followers=two", `"--followers" flag: not a whole number`},
		"conflict": {"--heartbeat-timeout=200ms", "heartbeat.timeout = 200ms (--heartbeat-timeout) is too short for heartbeat.interval = 90ms (own.hcl:1:24); want a timeout of at least 3 intervals, that is 270ms"},
		"default":  {"--replication-min-sync=3", "replication.min_sync = 3 (--replication-min-sync) cannot be reached with followers = 2 (default)"},
	} {
		fs := pflag.NewFlagSet("up", pflag.ContinueOnError)
		flags := BindFlags(fs)
		c := mustParse(t, `heartbeat { interval = "90ms" }`)
		before := c.Encode()
		err := fs.Parse([]string{tc.args})
		if err == nil {
			err = flags.Apply(c)
		}
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v", name, err)
		}
		if !bytes.Equal(before, c.Encode()) {
			t.Errorf("%s: the configuration changed", name)
		}
	}
}

func TestLoadFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "own.hcl")
	if _, err := Load(path, builtIn(t)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: got %v", err)
	}
	if err := os.WriteFile(path, []byte("followers = 5"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path, builtIn(t))
	if err != nil || c.Followers != 5 {
		t.Errorf("got %+v, %v", c, err)
	}
	if err := os.WriteFile(path, make([]byte, maxFileBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path, builtIn(t)); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "larger than 1MiB") {
		t.Errorf("large file: got %v", err)
	}
}

func TestBytes(t *testing.T) {
	for in, want := range map[string]Bytes{"0B": 0, "1B": 1, "1024B": KiB, "3KiB": 3 * KiB, "64MiB": 64 * MiB, "2GiB": 2 * GiB, "1TiB": TiB} {
		got, err := ParseBytes(in)
		if err != nil || got != want {
			t.Errorf("%s: got %d, %v", in, got, err)
		}
		if again, err := ParseBytes(got.String()); err != nil || again != got {
			t.Errorf("%s as %s: got %d, %v", in, got, again, err)
		}
	}
	for _, in := range []string{"", "MiB", "1", "1MB", "1 MiB", "-1MiB", "1.5GiB", "9999999TiB", "99999999999999999999B", "1MiBs"} {
		if got, err := ParseBytes(in); err == nil {
			t.Errorf("%q: got %d", in, got)
		}
	}
}

func TestAutoCompaction(t *testing.T) {
	for in, want := range map[string]AutoCompaction{
		"off": {}, "1": {Revisions: 1}, "01000": {Revisions: 1000}, "1h": {Period: time.Hour}, "1h30m": {Period: 90 * time.Minute},
	} {
		c := mustParse(t, `store { auto_compaction = "`+in+`" }`)
		if c.Store.AutoCompaction != want {
			t.Errorf("%s: got %+v", in, c.Store.AutoCompaction)
		}
		if again, err := parseRetention(c.Store.AutoCompaction.String()); err != nil || again != want {
			t.Errorf("%s as %s: got %+v, %v", in, c.Store.AutoCompaction, again, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	defaults := builtIn(f)
	f.Add(defaults)
	f.Add([]byte(full))
	for _, tc := range refusals {
		f.Add([]byte(tc.src))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		c, err := Parse("own.hcl", src, defaults)
		if err != nil {
			if !errors.Is(err, ErrInvalid) || err.Error() == "" {
				t.Fatalf("not a refusal: %v", err)
			}
			return
		}
		if err := c.Validate(); err != nil {
			t.Fatalf("accepted, but %v", err)
		}
		d, err := Decode(c.Encode())
		if err != nil {
			t.Fatalf("decode what was accepted: %v", err)
		}
		if !bytes.Equal(c.Encode(), d.Encode()) {
			t.Fatalf("got %s, want %s", d.Encode(), c.Encode())
		}
	})
}
