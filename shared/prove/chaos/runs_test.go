package chaos

import (
	"strings"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/host/proc"
)

const ms = int64(time.Millisecond)

// line returns a line of the journal of the process with a pid, at a time in milliseconds.
func line(atMS int64, pid int, instance, what string) entry {
	return entry{at: atMS * ms, id: proc.Identity{PID: pid, StartTime: uint64(pid)}, instance: instance, token: "t", what: what}
}

func killAt(atMS int64, pid int, instance string) kill {
	return kill{at: atMS * ms, id: proc.Identity{PID: pid, StartTime: uint64(pid)}, instance: instance}
}

func spanOfMS(service string, fromMS, toMS int64) span { return span{service, fromMS * ms, toMS * ms} }

func TestJournalLines(t *testing.T) {
	e := line(17, 4, "burst/1", "exit 3")
	if got, err := parseEntry(e.String()); err != nil || got != e {
		t.Errorf("%+v, %v", got, err)
	}
	for _, wrong := range []string{"", "1 2 3 burst/1 t", "x 2 3 burst/1 t start", "1 x 3 burst/1 t start", "1 2 x burst/1 t start"} {
		if _, err := parseEntry(wrong); err == nil {
			t.Errorf("%q is taken for a line of the journal", wrong)
		}
	}
}

// TestWrongRunsAreFound spoils a correct history of the runs of an instance.
func TestWrongRunsAreFound(t *testing.T) {
	killed := func(*traces) {}
	said := func(code int, signal string) func(*traces) {
		return func(t *traces) {
			t.seen[runKey{"burst/1", 2}] = sight{last: 30000 * ms, exited: true, code: code, signal: signal}
		}
	}
	both := func(f ...func(*traces)) func(*traces) {
		return func(t *traces) {
			for _, f := range f {
				f(t)
			}
		}
	}
	alone := func(t *traces) { t.killed = nil } // the program ended without a kill
	exits := func(what string) func(*traces) {
		return func(t *traces) {
			t.killed = nil
			t.journal = []entry{t.journal[0], line(20000, 1, "burst/1", what), t.journal[1]}
		}
	}
	blind := func(fromMS, toMS int64) func(*traces) {
		return func(t *traces) { t.blind = append(t.blind, spanOfMS("", fromMS, toMS)) }
	}
	order := func(service string, fromMS, toMS int64) func(*traces) {
		return func(t *traces) { t.orders = append(t.orders, spanOfMS(service, fromMS, toMS)) }
	}
	for name, c := range map[string]struct {
		spoil func(*traces)
		want  string // part of the finding; empty: no finding
	}{
		"killed":                              {killed, ""},
		"killed by nobody":                    {alone, "restarted without a reason"},
		"another process was killed":          {func(t *traces) { t.killed[0].id.StartTime++ }, "restarted without a reason"},
		"an order":                            {both(alone, order("burst", 19000, 20000)), ""},
		"an order for all":                    {both(alone, order("", 19000, 20000)), ""},
		"an order for another service":        {both(alone, order("answer", 19000, 20000)), "restarted without a reason"},
		"an order long before":                {both(exits("exit 0"), order("burst", 9000, 11000)), "restarted without a reason"},
		"two processes":                       {func(t *traces) { t.journal = append(t.journal, line(5, 9, "burst/1", doubled+" start beside 2")) }, "two processes of one instance"},
		"a program that failed":               {func(t *traces) { t.journal = append(t.journal, line(5, 9, "burst/1", "error no space")) }, "a program failed"},
		"ps says that it was killed":          {said(-1, "KILL"), ""},
		"ps says that it was killed, falsely": {both(exits("exit 0"), said(-1, "KILL")), "nothing killed it"},
		"ps says that it exited, falsely":     {said(0, ""), "did not exit by itself"},
		"the right status":                    {both(exits("exit 7"), said(7, ""), order("burst", 19000, 20000)), ""},
		"a wrong status":                      {both(exits("exit 7"), said(8, ""), order("burst", 19000, 20000)), "exit status 8, but it was 7"},
		"a status of the run before":          {both(exits("exit 7"), said(8, ""), order("burst", 19000, 20000), blind(9500, 10000)), ""},
		"unknown with a leader":               {said(-1, ""), "unknown although a member was alive"},
		"unknown over a takeover":             {both(said(-1, ""), blind(19990, 20020)), "unknown although a member was alive"},
		"unknown after a start in a takeover": {both(said(-1, ""), blind(9500, 10000)), ""},
		"unknown while all members were dead": {both(said(-1, ""), func(t *traces) { t.dead = []span{spanOfMS("", 19990, 20020)} }), ""},
	} {
		tr := traces{
			journal: []entry{line(10000, 1, "burst/1", "start"), line(20010, 2, "burst/1", "start")},
			killed:  []kill{killAt(20000, 1, "burst/1")}, seen: map[runKey]sight{},
		}
		c.spoil(&tr)
		w, s := wrongs{}, ServiceStats{}
		checkRuns(&tr, &s, w)
		found := strings.Join(append(w[CheckInstances], w[CheckExits]...), "\n")
		if !strings.Contains(found, c.want) || (found != "") != (c.want != "") {
			t.Errorf("%s: found %q, want %q", name, found, c.want)
		}
		if s.Runs != 2 {
			t.Errorf("%s: %d runs, want 2", name, s.Runs)
		}
	}
}

func TestRefusedConnections(t *testing.T) {
	for name, c := range map[string]struct {
		atMS  int64
		spoil func(*traces)
		want  string
	}{
		"a member was alive":              {1000, func(*traces) {}, "although a member was alive"},
		"the program was alive":           {2000, func(*traces) {}, "although a program had the socket"},
		"the program was dead":            {2000, func(t *traces) { t.killed = []kill{killAt(1950, 1, "answer/1")} }, ""},
		"the program had ended":           {2000, func(t *traces) { t.journal = append(t.journal, line(1950, 1, "answer/1", "exit 0")) }, ""},
		"the program was not yet started": {2000, func(t *traces) { t.journal[0].at = 2050 * ms }, ""},
		"the next program had been started": {2000, func(t *traces) {
			t.killed = []kill{killAt(1950, 1, "answer/1")}
			t.journal = append(t.journal, line(1990, 2, "answer/1", "start"))
		}, "although a program had the socket"},
	} {
		tr := traces{journal: []entry{line(500, 1, "answer/1", "start")}, dead: []span{spanOfMS("", 1900, 2100)}, refused: []int64{c.atMS * ms}}
		c.spoil(&tr)
		w, s := wrongs{}, ServiceStats{}
		checkRefused(&tr, &s, w)
		found := strings.Join(w[CheckSockets], "\n")
		if !strings.Contains(found, c.want) || (found != "") != (c.want != "") || s.Refused+s.RefusedWhileDead != 1 {
			t.Errorf("%s: found %q, want %q; %+v", name, found, c.want, s)
		}
	}
}

func TestWrongOutputIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want string
	}{
		"complete":             {"a 1 x.|b 1 .x.|a 2 x.|b 2 x.", ""},
		"the last line is cut": {"a 1 x.|b 1 x.|a 2 x.|b 2 x.|a 3 x", ""},
		"a line is missing":    {"a 1 x.|b 2 x.|a 2 x.|b 2 x.", "follows line 0"},
		"a line is repeated":   {"a 1 x.|b 1 x.|a 2 x.|a 2 x.|b 2 x.", "follows line 2"},
		"in the wrong order":   {"a 2 x.|a 1 x.|b 1 x.|b 2 x.", "follows line 0"},
		"a line within is cut": {"a 1 x.|b 1 x|b 1 x.|b 2 x.|a 2 x.", "a line was cut"},
		"the end is missing":   {"a 1 x.|b 1 x.|b 2 x.", "process a ends with line 1, but it has written 2"},
	} {
		l, w, s := lines{last: map[string]uint64{}, partial: map[string]string{}}, wrongs{}, ServiceStats{}
		for text := range strings.SplitSeq(c.text, "|") {
			l.check("output.log", text, &s, w)
			l.check("output.log", "", &s, w) // each burst begins with an empty line
		}
		l.end("a", 2, &s, w)
		l.end("b", 2, &s, w)
		found := strings.Join(w[CheckOutput], "\n")
		if !strings.Contains(found, c.want) || (found != "") != (c.want != "") || s.LinesWrong > 0 != (c.want != "") {
			t.Errorf("%s: found %q, want %q", name, found, c.want)
		}
	}
}

func TestGapsAreMeasured(t *testing.T) {
	tr := traces{
		journal: []entry{line(0, 1, "burst/1", "start"), line(110, 2, "burst/1", "start"), line(230, 3, "burst/1", "start")},
		killed:  []kill{killAt(100, 1, "burst/1"), killAt(200, 2, "burst/1")},
		blind:   []span{spanOfMS("", 190, 220)},
	}
	led, taken := tr.gaps()
	if len(led) != 1 || led[0] != 10*time.Millisecond || len(taken) != 1 || taken[0] != 30*time.Millisecond {
		t.Errorf("with a leader %v, during a takeover %v", led, taken)
	}
}

func TestReportOfServices(t *testing.T) {
	r := failedReport()
	r.Services = &ServiceStats{Instances: 8, Runs: 77, Lines: 1234}
	r.Findings = append(r.Findings, Finding{Check: CheckSockets, Text: "refused"})
	var text, page strings.Builder
	if err := r.Print(&text); err != nil {
		t.Fatal(err)
	}
	if err := r.HTML(&page); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"services: 8 instances with 77 runs", "output: 1234 lines", CheckSockets, CheckInstances} {
		if !strings.Contains(text.String(), want) || !strings.Contains(page.String(), want) {
			t.Errorf("%q is not in the report\n%s", want, text.String())
		}
	}
	r.Services = nil
	text.Reset()
	if err := r.Print(&text); err != nil || strings.Contains(text.String(), CheckInstances) {
		t.Errorf("a run without services reports about them: %v\n%s", err, text.String())
	}
}
