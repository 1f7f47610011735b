package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// fullService gives every field of a service a value other than its default.
const fullService = `
service "web" {
  command   = ["./server", "-port", "8080"]
  dir       = "/srv/web"
  user      = "www-data"
  group     = "33"
  umask     = "0027"
  env       = { MODE = "production", PORT = "8080" }
  env_file  = "/srv/web.env"
  instances = 4
  hosts     = ["host-a", "host-b"]
  restart   = "on-failure"
  listen "http" { address = "127.0.0.1:8080" }
  listen "ctl" { address = "unix:/run/web.sock" }
  needs = ["db"]
  after = ["migrate"]
  ready {
    http      = "http://127.0.0.1:8080/healthz"
    interval  = "2s"
    timeout   = "3s"
    threshold = 2
  }
  alive {
    exec      = ["./check", "--fast"]
    interval  = "5s"
    timeout   = "4s"
    threshold = 6
  }
  stop {
    signal  = "SIGQUIT"
    timeout = "1m"
  }
  reload { signal = "hup" }
  backoff {
    first = "50ms"
    max   = "1m"
    limit = 10
  }
  limits {
    memory     = "512MiB"
    cpu        = 1.5
    open_files = 4096
    processes  = 64
  }
  log {
    max_size    = "32MiB"
    max_backups = 5
  }
  security {
    no_new_privileges = true
    drop_capabilities = ["CAP_NET_RAW", "sys_admin"]
  }
}
service "db" {
  script = "exec db"
  hosts  = ["host-a", "host-b", "host-c"]
  ready { tcp = "localhost:5432" }
  alive { grpc = "[::1]:9000" }
  reload { exec = ["db", "reload"] }
}
service "migrate" {
  command = ["migrate"]
  restart = "never"
  ready { notify = true }
  alive { notify = true }
}
service "backup" {
  command  = ["backup"]
  hosts    = "one"
  schedule = "30 2 * * 1-5"
  ready { delay = "2s" }
}
service "idle" {
  command   = ["true"]
  instances = 0
  ready { exec = ["test", "-e", "/x"] }
  alive { tcp = "127.0.0.1:1" }
  security { drop_capabilities = ["ALL"] }
}
service "api" {
  command = ["api"]
  ready { grpc = "127.0.0.1:2" }
  alive { http = "https://localhost/live" }
}
`

func TestServices(t *testing.T) {
	c := mustParse(t, fullService)
	var names []string
	for _, s := range c.Services {
		names = append(names, s.Name)
	}
	if got, want := strings.Join(names, " "), "web db migrate backup idle api"; got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	want := Service{
		Name: "web", Source: "own.hcl:2", Command: []string{"./server", "-port", "8080"}, Dir: "/srv/web", User: "www-data", Group: "33", Umask: 0o27,
		Env: map[string]string{"MODE": "production", "PORT": "8080"}, EnvFile: "/srv/web.env", Instances: 4, Hosts: Placement{Names: []string{"host-a", "host-b"}}, Restart: RestartOnFailure,
		Listen: []Listen{{"http", "127.0.0.1:8080"}, {"ctl", "unix:/run/web.sock"}}, Needs: []string{"db"}, After: []string{"migrate"},
		Ready: &Check{Kind: CheckHTTP, Target: "http://127.0.0.1:8080/healthz", Interval: 2 * time.Second, Timeout: 3 * time.Second, Threshold: 2},
		Alive: &Check{Kind: CheckExec, Command: []string{"./check", "--fast"}, Interval: 5 * time.Second, Timeout: 4 * time.Second, Threshold: 6},
		Stop:  StopPolicy{Signal: "QUIT", Timeout: time.Minute}, Reload: ReloadAction{Signal: "HUP"},
		Backoff: Backoff{50 * time.Millisecond, time.Minute, 10}, Limits: Limits{512 * MiB, 1500, 4096, 64},
		Log: ServiceLog{32 * MiB, 5}, Security: Security{true, []string{"NET_RAW", "SYS_ADMIN"}},
	}
	if got := c.Services[0]; !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for i, want := range []struct{ ready, alive *Check }{
		1: {&Check{CheckTCP, "localhost:5432", nil, 0, time.Second, time.Second, 3}, &Check{CheckGRPC, "[::1]:9000", nil, 0, time.Second, time.Second, 3}},
		2: {&Check{CheckNotify, "", nil, 0, time.Second, time.Second, 3}, &Check{CheckNotify, "", nil, 0, time.Second, time.Second, 3}},
		3: {&Check{CheckDelay, "", nil, 2 * time.Second, time.Second, time.Second, 3}, nil},
	} {
		if s := c.Services[i]; i > 0 && (!reflect.DeepEqual(s.Ready, want.ready) || !reflect.DeepEqual(s.Alive, want.alive)) {
			t.Errorf("%s: got %+v and %+v", s.Name, s.Ready, s.Alive)
		}
	}
	if s := c.Services[3]; s.Schedule != "30 2 * * 1-5" || s.Restart != RestartNever || !s.Hosts.One {
		t.Errorf("got %+v", s)
	}
	if s := c.Services[4]; s.Instances != 0 || !reflect.DeepEqual(s.Security.DropCapabilities, []string{"all"}) {
		t.Errorf("got %+v", s)
	}
}

// The fields of all services together cover the table, and each of them has an effect.
func TestEveryServiceFieldIsRead(t *testing.T) {
	base := NewService()
	set := map[string]bool{}
	for _, s := range mustParse(t, fullService).Services {
		for _, f := range serviceFields {
			if f.text(&s) != f.text(&base) {
				set[f.path] = true
			}
		}
	}
	for _, f := range serviceFields {
		if !set[f.path] {
			t.Errorf("%s is not read", f.path)
		}
	}
}

func TestServiceDefaults(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	want := NewService()
	want.Name, want.Source, want.Command, want.Dir = "a", "own.hcl:1", []string{"true"}, wd
	if got := mustParse(t, `service "a" { command = ["true"] }`).Services; !reflect.DeepEqual(got, []Service{want}) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// Relative paths of a service start at the directory of the file, so that every process that
// reads the file again gets the same ones.
func TestServicePathsStartAtTheFile(t *testing.T) {
	t.Setenv("HOME", "/home/me")
	for in, want := range map[string]string{"": "/etc/app", "run": "/etc/app/run", "../x": "/etc/x", "/a//b/": "/a/b", "~/d": "/home/me/d"} {
		src := `service "a" { script = "x" }`
		if in != "" {
			src = "service \"a\" {\n  script = \"x\"\n  dir = \"" + in + "\"\n  env_file = \"" + in + "\"\n}"
		}
		c, err := Parse("/etc/app/own.hcl", []byte(src), builtIn(t))
		if err != nil {
			t.Fatal(err)
		}
		if s := c.Services[0]; s.Dir != want || in != "" && s.EnvFile != want {
			t.Errorf("%q: got %s and %s, want %s", in, s.Dir, s.EnvFile, want)
		}
	}
}

func TestServicesEncodeDecode(t *testing.T) {
	c := mustParse(t, fullService)
	d, err := Decode(c.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(c.Services, d.Services) {
		t.Errorf("got  %+v\nwant %+v", d.Services, c.Services)
	}
	if a, b := mustParse(t, fullService).Encode(), d.Encode(); !bytes.Equal(a, b) {
		t.Errorf("got  %s\nwant %s", b, a)
	}
	// Without services the encoding is that of a build that knows none.
	if b := mustParse(t, "").Encode(); bytes.Contains(b, []byte("service")) {
		t.Errorf("got %s", b)
	}
}

// A build with other defaults reads the services as the one that encoded them meant them.
func TestDecodeUsesTheEncodedDefaults(t *testing.T) {
	b := mustParse(t, `service "a" { command = ["true"] }`).Encode()
	b = bytes.Replace(b, []byte(`"stop.timeout":"10s"`), []byte(`"stop.timeout":"20s"`), 1)
	c, err := Decode(b)
	if err != nil || c.Services[0].Stop.Timeout != 20*time.Second {
		t.Errorf("got %v, %v", c, err)
	}
}

func TestDecodeRefusesDamagedServices(t *testing.T) {
	good := string(mustParse(t, fullService).Encode())
	for name, tc := range map[string]struct{ from, to, want string }{
		"no defaults":       {`"service_defaults":`, `"service_default":`, "service_defaults: EOF"},
		"unknown field":     {`"umask":`, `"umsk":`, `unknown field "umsk"`},
		"bad value":         {`"umask":"0027"`, `"umask":"9"`, "not an octal number"},
		"out of range":      {`"umask":"0027"`, `"umask":"7777"`, "web.umask = 7777: too large"},
		"field twice":       {`"umask":"0027"`, `"umask":"0027","umask":"0022"`, "umask is given twice"},
		"number":            {`"umask":"0027"`, `"umask":27`, "umask"},
		"no name":           {`"name":"web",`, ``, "service 1: the name is missing"},
		"bad name":          {`"name":"web",`, `"name":"../web",`, `service "../web": invalid name`},
		"relative dir":      {`"dir":"/srv/web"`, `"dir":""`, "web.dir = : empty"},
		"same name":         {`"name":"idle"`, `"name":"web"`, `service "web": given twice`},
		"broken rule":       {`"name":"db"`, `"name":"dc"`, `own.hcl:2: web.needs: there is no service "db" (did you mean "dc"?)`},
		"no list":           {`"services":[`, `"services":{"a":[`, "invalid"},
		"wrong kind":        {`"services":[{`, `"services":7,"x":[{`, "in place of a list"},
		"two kinds":         {`"ready.http":`, `"ready.tcp":"a:1","ready.http":`, "a check is of one kind"},
		"a check of none":   {`"ready.http":"http://127.0.0.1:8080/healthz",`, ``, "web.ready: it does not say how to check"},
		"relative socket":   {`unix:/run`, `unix:run`, "the path is not absolute"},
		"bad socket's name": {`ctl=unix`, `c:l=unix`, `"c:l" cannot be the name of a socket`},
	} {
		if !strings.Contains(good, tc.from) {
			t.Errorf("%s: %s is not in %s", name, tc.from, good)
		}
		_, err := Decode([]byte(strings.Replace(good, tc.from, tc.to, 1)))
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %s", name, err, tc.want)
		}
	}
	for n := range len(good) {
		if _, err := Decode([]byte(good[:n])); !errors.Is(err, ErrInvalid) {
			t.Fatalf("the first %d bytes: got %v", n, err)
		}
	}
}

// A copy shares nothing with the original.
func TestCloneIsDeep(t *testing.T) {
	c := mustParse(t, fullService)
	before := c.Encode()
	d := c.clone()
	for i := range d.Services {
		s := &d.Services[i]
		for _, list := range [][]string{s.Command, s.Needs, s.After, s.Reload.Command, s.Hosts.Names, s.Security.DropCapabilities, s.Alive.argv(), s.Ready.argv()} {
			for k := range list {
				list[k] = "changed"
			}
		}
		for k := range s.Env {
			s.Env[k] = "changed"
		}
		for k := range s.Listen {
			s.Listen[k].Name = "changed"
		}
		for _, check := range []*Check{s.Ready, s.Alive} {
			if check != nil {
				check.Threshold = 99
			}
		}
	}
	if after := c.Encode(); !bytes.Equal(before, after) {
		t.Errorf("got  %s\nwant %s", after, before)
	}
}

func TestDiffServices(t *testing.T) {
	before := mustParse(t, fullService).Services
	same := mustParse(t, "\n\n\n"+fullService).Services
	if added, removed, changed := DiffServices(before, same); added != nil || removed != nil || changed != nil {
		t.Errorf("other lines: got %v, %v, %v", added, removed, changed)
	}
	// Every field counts.
	base := NewService()
	base.Name = "a"
	for _, s := range before {
		for _, f := range serviceFields {
			if f.text(&s) == f.text(&base) {
				continue
			}
			other := base.clone()
			if err := f.parse(&other, f.text(&s)); err != nil {
				t.Fatal(err)
			}
			if _, _, changed := DiffServices([]Service{base}, []Service{other}); len(changed) != 1 {
				t.Errorf("%s of %s: no change", f.path, s.Name)
			}
		}
	}
	after := append([]Service{{Name: "new"}, {Name: "new2"}}, same[2:]...)
	after[2].Script = "x"
	added, removed, changed := DiffServices(before, after)
	if got, want := fmt.Sprint(added, removed, changed), "[new new2] [web db] [migrate]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A reload takes the services as a whole.
func TestMergeServices(t *testing.T) {
	running := mustParse(t, fullService)
	next := mustParse(t, `service "other" { command = ["true"] }`)
	merged, changed, restart, err := running.Merge(next)
	if err != nil || len(changed) != 0 || len(restart) != 0 {
		t.Fatalf("%v, %v, %v", changed, restart, err)
	}
	if !reflect.DeepEqual(merged.Services, next.Services) || len(running.Services) != 6 {
		t.Errorf("merged %+v, running %+v", merged.Services, running.Services)
	}
	merged.Services[0].Command[0] = "changed"
	if next.Services[0].Command[0] != "true" {
		t.Error("the result shares memory with the next configuration")
	}
	// The address is free in the next configuration, but not until a restart.
	next = mustParse(t, "client { listen = \"127.0.0.1:9999\" }\nservice \"a\" {\n  command = [\"a\"]\n  listen \"x\" { address = \"127.0.0.1:2379\" }\n}")
	if _, _, _, err := running.Merge(next); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "already taken by client.listen") {
		t.Errorf("got %v", err)
	}
}

func TestSchedules(t *testing.T) {
	for s, want := range map[string]string{
		"*/5 * * * *": "", "@hourly": "", "@every 90s": "", "0 0 29 2 *": "", "TZ=UTC 0 4 * * mon": "", "CRON_TZ=UTC @daily": "",
		"* * * *": "not a cron expression", "* * * * * *": "not a cron expression", "61 * * * *": "not a cron expression", "@often": "not a cron expression",
		"TZ=UTC": "only a time zone", "CRON_TZ=x": "only a time zone", "TZ=No/where * * * * *": "not a cron expression",
		"0 0 30 2 *": "no such day", "@every 10ms": "whole number of seconds", "@every -5s": "whole number of seconds",
	} {
		if err := checkSchedule(s); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: got %v, want %q", s, err, want)
		}
	}
}

// A thousand services fit into a file. What members get stays small.
func TestThousandServices(t *testing.T) {
	var b strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&b, "service \"sleep-%d\" {\n  # sleeps\n  command = [\"sleep\", \"infinity\"]\n", i)
		if i > 0 {
			fmt.Fprintf(&b, "  needs = [\"sleep-%d\"]\n", i-1)
		}
		b.WriteString("}\n")
	}
	c, err := Parse("/etc/dynast.hcl", []byte(b.String()), builtIn(t))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(c.WithoutServices().Encode()); len(c.Services) != 1000 || n > 8<<10 {
		t.Errorf("%d services, and %d bytes for the members", len(c.Services), n)
	}
}

func checkHost(t *testing.T, src string) error {
	t.Helper()
	c, err := Parse(filepath.Join(t.TempDir(), "own.hcl"), []byte(src), builtIn(t))
	if err != nil {
		t.Fatal(err)
	}
	return c.Services[0].CheckHost()
}

func TestCheckHost(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("server", "#!/bin/sh\n", 0o755)
	write("data", "", 0o644)
	write("good.env", "# comment\n\nexport A=1\nB = 'x y'\nC=\"z\"\nD=\n", 0o600)
	write("bad.env", "A=1\ns3cret\n", 0o600)
	write("zero.env", "A=\x00\n", 0o600)
	for name, tc := range map[string]struct{ fields, want string }{
		"good":                {`command = ["./server"]`, ""},
		"in PATH":             {`command = ["sh"]`, ""},
		"in its own PATH":     {`command = ["server"]` + "\n env = { PATH = \"" + dir + "\" }", ""},
		"script":              {`script = "anything"`, ""},
		"env file":            {"command = [\"sh\"]\n env_file = \"" + dir + "/good.env\"", ""},
		"own user and group":  {fmt.Sprintf("command = [\"sh\"]\n user = \"%d\"\n group = \"%d\"", os.Getuid(), os.Getgid()), ""},
		"missing program":     {`command = ["./nothing"]`, `own.hcl:1: a.command = ` + dir + `/nothing: no such file or directory; want a program`},
		"not executable":      {`command = ["./data"]`, "it is not executable"},
		"directory":           {`command = ["/etc"]`, "it is a directory"},
		"not in PATH":         {`command = ["nothing-of-this-name"]`, "a.command = nothing-of-this-name: not found in PATH"},
		"not in its own PATH": {"command = [\"sh\"]\n env = { PATH = \"/nowhere\" }", "want a program in one of the directories /nowhere"},
		"check program":       {"command = [\"sh\"]\n ready { exec = [\"/nothing\"] }\n alive { exec = [\"/nope\"] }", "a.ready.exec = /nothing: no such file or directory; want a program that can be executed\n"},
		"reload program":      {"command = [\"sh\"]\n reload { exec = [\"/nothing\"] }", "a.reload.exec = /nothing"},
		"missing user":        {"command = [\"sh\"]\n user = \"nobody-of-this-name\"", "there is no such user"},
		"missing group":       {"command = [\"sh\"]\n group = \"nobody-of-this-name\"", "there is no such group"},
		"missing env file":    {"command = [\"sh\"]\n env_file = \"/nothing\"", "a.env_file = /nothing: no such file or directory"},
		"bad line":            {"command = [\"sh\"]\n env_file = \"" + dir + "/bad.env\"", "line 2 is not NAME=VALUE"},
		"zero byte":           {"command = [\"sh\"]\n env_file = \"" + dir + "/zero.env\"", "line 1: A: not valid UTF-8"},
		"socket's directory":  {"command = [\"sh\"]\n listen \"x\" { address = \"unix:/nowhere/s\" }", "a.listen.x.address = /nowhere: no such file"},
	} {
		err := checkHost(t, "service \"a\" {\n dir = \""+dir+"\"\n"+tc.fields+"\n}")
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: the message shows the line: %v", name, err)
		}
	}
	err := checkHost(t, "service \"a\" {\n dir = \"/nowhere\"\n command = [\"./x\"]\n}")
	if err == nil || !strings.Contains(err.Error(), "a.dir = /nowhere: no such file or directory; want a directory that exists") || strings.Contains(err.Error(), "command") {
		t.Errorf("missing dir: got %v", err)
	}
	env, err := ReadEnvFile(filepath.Join(dir, "good.env"))
	if want := map[string]string{"A": "1", "B": " 'x y'", "C": "z", "D": ""}; err != nil || !reflect.DeepEqual(env, want) {
		t.Errorf("got %q, %v, want %q", env, err, want)
	}
}
