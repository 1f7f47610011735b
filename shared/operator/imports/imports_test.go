package imports

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// The kind is found from the name, then from the content.
func TestDetect(t *testing.T) {
	for _, c := range []struct {
		name, content string
		want          Kind
	}{
		{"Procfile", "anything", Procfile},
		{"app/Procfile.dev", "", Procfile},
		{"x", "web: run\n\n# y\n", Procfile},
		{"x.ini", "\n[program:a]\n", Supervisord},
		{"x.conf", "[group:a]", Supervisord},
		{"x.timer", "", Systemd},
		{"x", "[Unit]\n", Systemd},
		{"x.yml", "version: '1'\nprocesses:\n  a: {}", ProcessCompose},
		{"x", "\"processes\": {}", ProcessCompose},
		{"compose.yaml", "services:\n  a: {}", ""},
		{"x.yaml", "a: b", ""},
		{"x", "", ""},
		{"x", "plain text", ""},
	} {
		kind, err := detect(File{Name: c.name, Content: []byte(c.content)})
		if kind != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s %q is of the kind %q, %v; want %q", c.name, c.content, kind, err, c.want)
		}
	}
}

func textFile(name, content string) File {
	return File{Name: name, Dir: testDir, Content: []byte(content)}
}

// A mistake is reported with file and line.
func TestErrors(t *testing.T) {
	for _, c := range []struct{ name, content, want string }{
		{"Procfile", "web: a\nnothing here\n", "Procfile:2: this is not a line of a Procfile"},
		{"Procfile", "web: a\nweb: b\n", `Procfile:2: there are two services with the name "web"; the first one is in Procfile:1`},
		{"Procfile", "web:\n", `Procfile:1: the program "web" has no command`},
		{"Procfile", "# empty\n", "Procfile: there is no program"},
		{"Procfile", "a: b\nc: \xff\n", "Procfile:2: the line is not valid UTF-8"},
		{"Procfile", "a: b\x00\n", "Procfile:1: the line contains a NUL byte"},
		{"Procfile", "---: b\n", `Procfile:1: "---" is no name for a service`},
		{"s.ini", "[program:a]\ncommand=x 'y\n", "s.ini:2: command"},
		{"s.ini", "[program:a]\nuser=b\n", `s.ini:1: the program "a" has no command`},
		{"s.ini", "command=x\n[program:a]\n", "s.ini:1: command stands before the first section"},
		{"s.ini", "[program:a]\nrubbish\n", `s.ini:2: "rubbish" is neither a section nor NAME=VALUE`},
		{"s.ini", "[program:a]\ncommand=x\nnumprocs=many\n", `s.ini:3: numprocs: "many"`},
		{"s.ini", "[program:a]\ncommand=x %(y)s\n", `s.ini:2: the expansion at "%(y)s"`},
		{"s.ini", "[program:a]\ncommand=x\nstopsignal=FOO\n", `s.ini:3: stopsignal: "FOO" is not the name of a signal`},
		{"s.ini", "[program:a]\ncommand=x\numask=9\n", "s.ini:3: umask"},
		{"s.ini", "[program:a]\ncommand=x\nautostart=maybe\n", "s.ini:3: autostart"},
		{"s.ini", "[program:a]\ncommand=x\nenvironment=A=\"b\"C=d\n", "s.ini:3: environment"},
		{"s.ini", "[program:a]\ncommand=x\nstdout_logfile_maxbytes=big\n", "s.ini:3: stdout_logfile_maxbytes"},
		{"s.ini", "[program:a]\ncommand=x\n[group:g]\nprograms=a,b\n", `s.ini:4: the group "g" names the program "b"`},
		{"p.yaml", "processes:\n  a: {command: x\n", "p.yaml:"},
		{"p.yaml", "processes: {a: {command: x}}\n---\nprocesses: {b: {command: x}}\n", "p.yaml: the file has more than one YAML document"},
		{"p.yaml", "processes:\n  a: {}\n", `p.yaml:2: the process "a" has no command`},
		{"p.yaml", "processes:\n  a:\n    command: [x]\n", "p.yaml:3: command: want a text, got [x]"},
		{"p.yaml", "processes:\n  a:\n    command: x\n    command: y\n", `p.yaml:4: the key "command" is repeated`},
		{"p.yaml", "processes:\n  a:\n    command: x\n    replicas: -1\n", "p.yaml:4: replicas"},
		{"p.yaml", "processes:\n  a:\n    command: x\n    readiness_probe:\n      period_seconds: 1\n", "p.yaml:4: readiness_probe: want http_get or exec"},
		{"p.yaml", "processes:\n  a:\n    command: x\n    availability:\n      restart: often\n", "p.yaml:5: availability.restart: unknown policy often"},
		{"p.yaml", "processes:\n  a:\n    command: x\n    depends_on:\n      b: {condition: soon}\n", `p.yaml:5: depends_on: unknown condition "soon"`},
		{"p.yaml", "processes:\n  a: &a\n    command: x\n    <<: *a\n", "p.yaml:2: merges are nested too deeply"},
		{"x.service", "[Service]\nUser=a\n", "x.service:1: there is no ExecStart"},
		{"x.service", "[Service]\nExecStart=/a \\\n  'b\n", "x.service:2: ExecStart: a quotation mark is not closed"},
		{"x.service", "[Service]\nExecStart=/a\nRestart=often\n", `x.service:3: Restart: unknown value "often"`},
		{"x.service", "[Service]\nExecStart=/a\nTimeoutStopSec=soon\n", "x.service:3: TimeoutStopSec"},
		{"x.service", "[Service]\nExecStart=/a\nCPUQuota=NaN%\n", "x.service:3: CPUQuota"},
		{"x.service", "[Service]\nExecStart=/a\nMemoryMax=lots\n", "x.service:3: MemoryMax"},
		{"x.service", "[Service]\nExecStart=/a\nEnvironment=A\n", `x.service:3: Environment: "A" is not NAME=VALUE`},
		{"x.service", "[Service]\nExecStart=/a\nCapabilityBoundingSet=CAP_FLY\n", "x.service:3: CapabilityBoundingSet"},
		{"x.service", "ExecStart=/a\n[Service]\n", "x.service:1: ExecStart stands before the first section"},
		{"x.socket", "[Socket]\nListenStream=80\n", "x.socket: this unit starts x.service: import both together"},
	} {
		_, err := Import([]File{textFile(c.name, c.content)}, Options{})
		var mistake *Error
		if err == nil || !strings.HasPrefix(err.Error(), c.want) || !errors.As(err, &mistake) {
			t.Errorf("%q: %v\nwant %s", c.content, err, c.want)
		}
	}
}

// Files that do not belong together are refused.
func TestSeveralFiles(t *testing.T) {
	unit, procfile := textFile("x.service", "[Service]\nExecStart=/a"), textFile("Procfile", "a: b")
	dropIn := File{Name: "y.service.d/o.conf", Dir: "/app/y.service.d", Content: []byte("[Service]\nUser=a")}
	for want, files := range map[string][]File{
		"Procfile: this file is of the kind procfile, but x.service is of the kind systemd": {unit, procfile},
		"Procfile: only one file of the kind procfile":                                      {procfile, procfile},
		"y.service.d/o.conf: this file belongs to y.service":                                {unit, dropIn},
		"x.service:1: there are two services":                                               {unit, unit},
	} {
		if _, err := Import(files, Options{}); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
	if _, err := Import([]File{unit}, Options{Kind: "pm2"}); err == nil || !strings.Contains(err.Error(), "procfile, supervisord, process-compose, systemd") {
		t.Errorf("an unknown kind: %v", err)
	}
}

// importOne imports one file and returns the only block.
func importOne(t *testing.T, name, content string) (decoded, string) {
	t.Helper()
	out, err := Import([]File{textFile(name, content)}, Options{})
	if err != nil {
		t.Fatalf("%q: %v", content, err)
	}
	services := decode(t, out)
	if len(services) != 1 {
		t.Fatalf("want one service:\n%s", out)
	}
	for _, d := range services {
		return d, string(out)
	}
	return nil, ""
}

// comments returns the comments of an output without the breaks of lines.
func comments(out string) string {
	var words []string
	for line := range strings.Lines(out) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "#"); ok {
			words = append(words, strings.Fields(rest)...)
		}
	}
	return strings.Join(words, " ")
}

// Every directive that is not converted is named in a comment. The directives here are made up or
// have no counterpart.
func TestNothingIsDropped(t *testing.T) {
	for _, c := range []struct{ name, before, directive string }{
		{"s.ini", "[program:a]\ncommand=x\n", "frobnicate=17"},
		{"s.ini", "[program:a]\ncommand=x\n", "stderr_logfile=/x"},
		{"s.ini", "[program:a]\ncommand=x\n[supervisord]\n", "strip_ansi=true"},
		{"s.ini", "[program:a]\ncommand=x\n[other]\n", "frobnicate=17"},
		{"s.ini", "[program:a]\ncommand=x\n[include]\n", "files=*.conf"},
		{"p.yaml", "processes: {a: {command: x}}\n", "frobnicate: 17"},
		{"p.yaml", "processes:\n  a:\n    command: x\n", "    frobnicate: 17"},
		{"p.yaml", "processes:\n  a:\n    command: x\n", "    is_daemon: true"},
		{"p.yaml", "processes:\n  a:\n    command: x\n    shutdown:\n", "      frobnicate: 17"},
		{"p.yaml", "processes:\n  a:\n    command: x\n    availability:\n", "      exit_on_end: true"},
		{"x.service", "[Service]\nExecStart=/a\n", "Frobnicate=17"},
		{"x.service", "[Service]\nExecStart=/a\n", "ExecStartPost=/b c"},
		{"x.service", "[Service]\nExecStart=/a\n", "KillSignal=SIGRTMIN+3"},
		{"x.service", "[Service]\nExecStart=/a\n[Unit]\n", "Requires=b.service"},
		{"x.service", "[Service]\nExecStart=/a\n[X-Mine]\n", "Frobnicate=17"},
		{"x.service", "[Service]\nExecStart=/a\n[Install]\n", "WantedBy=multi-user.target"},
	} {
		_, out := importOne(t, c.name, c.before+c.directive+"\n")
		want := strings.Replace(strings.TrimSpace(c.directive), ": ", "=", 1)
		if !strings.Contains(comments(out), want) {
			t.Errorf("%s: no comment names %s in\n%s", c.name, want, out)
		}
	}
}

// A comment cannot be ended by the text of the input.
func TestCommentsStayComments(t *testing.T) {
	for _, newline := range []string{"\\n", "\\r", "\\u2028", "\\u0085"} {
		_, out := importOne(t, "p.yaml", "processes: {a: {command: x, frobnicate: \"1"+newline+"script = 1\"}}")
		for line := range strings.Lines(out) {
			if strings.Contains(line, "script = 1") && !strings.HasPrefix(strings.TrimSpace(line), "#") {
				t.Errorf("%s ended the comment:\n%s", newline, out)
			}
		}
	}
}

func TestScript(t *testing.T) {
	for command, want := range map[string]string{
		"bin/x -p $PORT":  "exec bin/x -p $PORT",
		"A=b x":           "A=b x",
		"cd a && b":       "cd a && b",
		"cd a":            "cd a",
		"exec x":          "exec x",
		" x 'a' # why":    "exec x 'a' # why",
		"x | y":           "x | y",
		"if true; then x": "if true; then x",
	} {
		if got := script(command); got != want {
			t.Errorf("%q became %q, want %q", command, got, want)
		}
	}
}

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		split func(string) ([]string, error)
		text  string
		want  []string
	}{
		{splitShlex, `a  "b c" d'e 'f \g "" "\"\$"`, []string{"a", "b c", "de f", "g", "", `"\$`}},
		{splitShlex, `a'\b'`, []string{`a\b`}},
		{splitShlex, `'a`, nil},
		{splitShlex, `a\`, nil},
		{splitUnit, `a  "b\"c" 'd\'e' \x41 \u00e9 \141 \q`, []string{"a", `b"c`, "d'e", "A", "é", "a", `\q`}},
		{splitUnit, `\xff`, nil},
		{splitUnit, `\x00`, nil},
		{splitUnit, `"a`, nil},
		{splitUnit, `a\`, nil},
	} {
		got, err := c.split(c.text)
		if !slices.Equal(got, c.want) || (err == nil) != (c.want != nil) {
			t.Errorf("%s became %q, %v; want %q", c.text, got, err, c.want)
		}
	}
}

func TestValues(t *testing.T) {
	for text, want := range map[string]string{"15": "TERM", "SIGHUP": "HUP", "usr1": "USR1", "SIGRTMIN+3": "RTMIN+3", "0": "", "99": "", "RTX Y": "", "": ""} {
		if got, err := signal(text); got != want || (err == nil) != (want != "") {
			t.Errorf("the signal %q is %q, %v; want %q", text, got, err, want)
		}
	}
	for text, want := range map[string]string{"50MB": "50MiB", "1536K": "1536KiB", "1048576": "1MiB", "2g": "2GiB", "0": "0B", "1.5G": "", "9999999999T": "", "": ""} {
		n, err := size(text)
		got := sizeText(n)
		if err != nil {
			got = ""
		}
		if got != want {
			t.Errorf("the size %q is %q, %v; want %q", text, got, err, want)
		}
	}
	for text, want := range map[string]time.Duration{"90": 90 * time.Second, "1min 30s": 90 * time.Second, "2h5ms": 2*time.Hour + 5*time.Millisecond, "1.5s": 1500 * time.Millisecond, "x": -1, "3 parsecs": -1} {
		got, infinite, err := timeSpan(text)
		if err != nil {
			got = -1
		}
		if got != want || infinite {
			t.Errorf("the time span %q is %s, %v; want %s", text, got, err, want)
		}
	}
	for d, want := range map[time.Duration]string{90 * time.Second: "1m30s", time.Hour: "1h", 10 * time.Minute: "10m", 100 * time.Millisecond: "100ms", 0: "0s"} {
		if got := durationText(d); got != want {
			t.Errorf("%d is written %q, want %q", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{time.Minute: "* * * * *", 15 * time.Minute: "*/15 * * * *", 6 * time.Hour: "0 */6 * * *", 24 * time.Hour: "0 0 * * *", 7 * time.Minute: "", time.Second: "", 90 * time.Minute: "", 0: ""} {
		if got, _ := every(d); got != want {
			t.Errorf("every %s is %q, want %q", d, got, want)
		}
	}
}

func TestCalendar(t *testing.T) {
	for text, want := range map[string]string{
		"daily":                       "0 0 * * *",
		"weekly":                      "0 0 * * 1",
		"*-*-* 02:30:00":              "30 2 * * *",
		"02:05":                       "5 2 * * *",
		"*:0/15":                      "*/15 * * * *",
		"*:5/20":                      "5-59/20 * * * *",
		"Mon..Fri 10:00":              "0 10 * * 1-5",
		"Sat,Sun *-*-* 4:00":          "0 4 * * 6,0",
		"Fri..Mon":                    "0 0 * * 5-6,0-1",
		"*-*-01,15 00:00:00":          "0 0 1,15 * *",
		"*-01..03-1 6..8:00":          "0 6-8 1 1-3 *",
		"2026-*-* 00:00":              "",
		"*-*~1":                       "",
		"Mon *-*-1..7":                "",
		"*:*:0/10":                    "",
		"*-*-* 02:30:00 Europe/Paris": "",
		"25:00":                       "",
		"":                            "",
		"*:0/0":                       "",
	} {
		if got, ok := calendar(text); got != want || ok != (want != "") {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}
