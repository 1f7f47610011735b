package imports

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/dynast-io/dynast/shared/config"
)

// A shell does with a script what supervisord and systemd do with the original: the words that
// reach the program are the same.
func TestWordsOfScripts(t *testing.T) {
	for _, c := range []struct {
		name, content string
		env           []string
		want          []string
	}{
		{"s.ini", "[program:a]\ncommand=x %(ENV_A)s '%(ENV_A)s y' a\"b*\"\\ c $HOME", []string{"A=1  2"}, []string{"x", "1  2", "1  2 y", "ab* c", "$HOME"}},
		{"s.ini", "[program:a]\nnumprocs=3\ncommand=x w%(process_num)03d", []string{"INSTANCE=3"}, []string{"x", "w002"}},
		{"s.ini", "[program:a]\nnumprocs=3\nnumprocs_start=1\ncommand=x w%(process_num)d", []string{"INSTANCE=3"}, []string{"x", "w3"}},
		{"s.ini", "[program:a]\nnumprocs=3\nnumprocs_start=100\ncommand=x %(process_num)d of %(numprocs)s", []string{"INSTANCE=3"}, []string{"x", "102", "of", "3"}},
		{"x@.service", "[Service]\nExecStart=x $A ${A} \"a ${A} b\" $$A c$A %i%% '%n'", []string{"A=1  2", "INSTANCE=7"},
			[]string{"x", "1", "2", "1  2", "a 1  2 b", "$A", "c$A", "7%", "x@.service"}},
	} {
		d, out := importOne(t, c.name, c.content)
		// The program is replaced by one that prints its words.
		shell := "x() { printf '%s\\n' x \"$@\"; }\n" + strings.Replace(d.text(t, "script"), "exec x", "x", 1)
		cmd := exec.Command("/bin/sh", "-c", shell)
		cmd.Env = c.env
		got, err := cmd.Output()
		if words := strings.Split(strings.TrimSuffix(string(got), "\n"), "\n"); err != nil || !slices.Equal(words, c.want) {
			t.Errorf("%s: the words are %q, %v; want %q\n%s", c.content, words, err, c.want, out)
		}
	}
}

func TestSupervisordEnvironment(t *testing.T) {
	d, out := importOne(t, "s.ini", "[supervisord]\nenvironment=A=0,Z=z\n[program:a]\ncommand=x\nenvironment=A=\"b,c\",\n  D='e \"f\"',G=h%%, I=\"%(here)s/%(program_name)s\",J=\"${x}\"\n")
	want := map[string]string{"A": "b,c", "D": `e "f"`, "G": "h%", "I": "/app/a", "J": "${x}", "Z": "z"}
	env := d["env"].AsValueMap()
	if len(env) != len(want) {
		t.Errorf("want %d variables:\n%s", len(want), out)
	}
	for name, value := range want {
		if v, ok := env[name]; !ok || v.AsString() != value {
			t.Errorf("%s is %#v, want %q", name, v, value)
		}
	}
}

// A file that includes itself is read once, and without Glob the section becomes a comment.
func TestInclude(t *testing.T) {
	main := textFile("s.ini", "[program:a]\ncommand=x\n[include]\nfiles=%(here)s/s.ini")
	asked := ""
	out, err := Import([]File{main}, Options{Glob: func(dir, pattern string) ([]File, error) {
		asked = dir + " " + pattern
		return []File{main}, nil
	}})
	if err != nil || asked != "/app /app/s.ini" || len(decode(t, out)) != 1 {
		t.Errorf("asked for %q: %v\n%s", asked, err, out)
	}
}

// foreman reads .env, so the services do too.
func TestDotEnv(t *testing.T) {
	out, err := Import([]File{textFile("Procfile", "a: b")}, Options{Glob: func(dir, pattern string) ([]File, error) {
		return []File{{Name: dir + "/" + pattern}}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if got := decode(t, out)["a"].text(t, "env_file"); got != ".env" {
		t.Errorf("env_file is %q", got)
	}
}

func importUnits(t *testing.T, units map[string]string) (map[string]decoded, string) {
	t.Helper()
	var files []File
	for name, content := range units {
		files = append(files, textFile(name, content))
	}
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	out, err := Import(files, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, out), string(out)
}

// Dependencies between imported units become needs and after. systemd starts a unit that is
// wanted before its wanter if Before says so.
func TestUnitDependencies(t *testing.T) {
	d, out := importUnits(t, map[string]string{
		"a.service": "[Unit]\nWants=b.service c.service\nBefore=c.service\n[Service]\nExecStart=/a",
		"b.service": "[Service]\nType=oneshot\nExecStart=/b",
		"c.service": "[Unit]\nAfter=b.service b.service gone.service\n[Service]\nExecStart=/c",
	})
	for _, c := range []struct {
		service, list string
		want          []string
	}{{"a", "after", []string{"b"}}, {"c", "needs", []string{"a"}}, {"c", "after", []string{"b"}}} {
		if got := d[c.service].list(t, c.list); !slices.Equal(got, c.want) {
			t.Errorf("%s of %s is %q, want %q\n%s", c.list, c.service, got, c.want, out)
		}
	}
	if _, ok := d["a"]["needs"]; ok {
		t.Errorf("a and c need each other:\n%s", out)
	}
	if !strings.Contains(comments(out), "After=gone.service: this unit was not imported") {
		t.Errorf("no comment about gone.service:\n%s", out)
	}
}

// A list directive is reset by an empty value, and a later one replaces a single value.
func TestUnitReset(t *testing.T) {
	d, out := importOne(t, "x.service", "[Service]\nExecStart=/a\nExecStart=\nExecStart=/b\nEnvironment=A=1\nEnvironment=B=2\nUser=u\nUser=v")
	if got := d.list(t, "command"); !slices.Equal(got, []string{"/b"}) || d.text(t, "user") != "v" || len(d["env"].AsValueMap()) != 2 {
		t.Errorf("got\n%s", out)
	}
	if !strings.Contains(comments(out), "User=u: this directive is repeated") {
		t.Errorf("no comment about the first user:\n%s", out)
	}
}

func TestExecReload(t *testing.T) {
	for value, want := range map[string]string{
		"kill -HUP $MAINPID":         "HUP",
		"/bin/kill -s USR2 $MAINPID": "USR2",
		"/bin/kill -1 ${MAINPID}":    "HUP",
		"/usr/bin/kill $MAINPID":     "TERM",
		"/x reload --pid $MAINPID":   "",
	} {
		d, out := importOne(t, "x.service", "[Service]\nExecStart=/a\nExecReload="+value)
		if _, ok := d["reload.signal"]; ok != (want != "") || ok && d.text(t, "reload.signal") != want {
			t.Errorf("%s: want %q\n%s", value, want, out)
		}
		if want == "" && !strings.Contains(comments(out), value) {
			t.Errorf("no comment about %s:\n%s", value, out)
		}
	}
}

func TestCapabilities(t *testing.T) {
	for value, want := range map[string]int{"": -1, "CAP_KILL": len(config.Capabilities) - 1, "~CAP_KILL CAP_CHOWN": 2, "~": 0} {
		d, out := importOne(t, "x.service", "[Service]\nExecStart=/a\nCapabilityBoundingSet="+value)
		if _, ok := d["security.drop_capabilities"]; !ok {
			if want != 0 {
				t.Errorf("%q drops nothing:\n%s", value, out)
			}
			continue
		}
		got := d.list(t, "security.drop_capabilities")
		if want >= 0 && len(got) != want || want < 0 && !slices.Equal(got, []string{"all"}) {
			t.Errorf("%q drops %q", value, got)
		}
	}
}

// A merge of YAML is overridden by the process itself, and an alias can stand for a list.
func TestComposeMerge(t *testing.T) {
	out, err := Import([]File{textFile("p.yaml", `
x-base: &base
  working_dir: /base
  replicas: 3
  environment: &env [A=1, "B=$$x"]
processes:
  a:
    <<: [*base]
    command: run
    working_dir: /a
  b: {command: run, environment: *env}
`)}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	d := decode(t, out)
	if d["a"].text(t, "dir") != "/a" || d["a"]["instances"].AsBigFloat().String() != "3" {
		t.Errorf("got\n%s", out)
	}
	for _, name := range []string{"a", "b"} {
		if got := d[name]["env"].AsValueMap()["B"].AsString(); got != "$x" {
			t.Errorf("B of %s is %q", name, got)
		}
	}
}

// What config.hcl refuses is not written: a task that always restarts, and variables of dynast.
func TestRefusedCombinations(t *testing.T) {
	d, out := importOne(t, "p.yaml", "processes: {a: {command: x, availability: {restart: always}, schedule: '0 1 * * *', environment: [INSTANCE=1, A=1]}}")
	if got := d.text(t, "restart"); got != "on-failure" || len(d["env"].AsValueMap()) != 1 {
		t.Errorf("got\n%s", out)
	}
	for _, want := range []string{"restart=always: a task", "environment INSTANCE: dynast itself"} {
		if !strings.Contains(comments(out), want) {
			t.Errorf("no comment %q in\n%s", want, out)
		}
	}
}
