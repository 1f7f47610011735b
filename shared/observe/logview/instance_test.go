package logview

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/observe/output"
)

var keepAll = output.Limits{MaxBytes: 16 << 10, MaxBackups: 1 << 20}

// program is an instance whose output is kept.
type program struct {
	t      *testing.T
	path   string
	limits output.Limits
	f      *os.File
	k      *output.Keeper
}

func newProgram(t *testing.T, services, instance string, limits output.Limits) *program {
	t.Helper()
	dir := filepath.Join(services, instance)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	p := &program{t: t, path: filepath.Join(dir, outputName), limits: limits}
	p.start()
	p.keep()
	t.Cleanup(func() {
		p.f.Close()
		if err := p.k.Close(time.Now()); err != nil {
			t.Error(err)
		}
	})
	return p
}

// start opens the output file, as each start of the program does.
func (p *program) start() {
	p.t.Helper()
	f, err := output.Open(p.path)
	if err != nil {
		p.t.Fatal(err)
	}
	if p.f != nil {
		p.f.Close()
	}
	p.f = f
}

// keep makes a Keeper, as a new leader does.
func (p *program) keep() {
	p.t.Helper()
	var err error
	if p.k != nil {
		if err := p.k.Close(time.Now()); err != nil {
			p.t.Fatal(err)
		}
	}
	if p.k, err = output.NewKeeper(p.path, p.limits); err != nil {
		p.t.Fatal(err)
	}
	p.tend(start) // it has seen the file before the program writes, so it knows the times
}

func (p *program) tend(now time.Time) {
	p.t.Helper()
	if _, err := p.k.Tend(now); err != nil {
		p.t.Fatal(err)
	}
}

func (p *program) write(text string) {
	p.t.Helper()
	if _, err := p.f.WriteString(text); err != nil {
		p.t.Fatal(err)
	}
}

// print writes at a time.
func (p *program) print(now time.Time, text string) {
	p.t.Helper()
	p.write(text)
	p.tend(now)
}

// pass returns what one look of Follow finds.
func pass(t *testing.T, v *View) (out []*Entry) {
	t.Helper()
	if err := v.search(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if err := v.merge(t.Context(), tail.settled, time.Time{}, func(e *Entry) error { out = append(out, e); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func showIn(t *testing.T, v *View) (out []*Entry) {
	t.Helper()
	if err := v.Show(t.Context(), func(e *Entry) error { out = append(out, e); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestInstances(t *testing.T) {
	dir := t.TempDir()
	if got, err := Instances(filepath.Join(dir, "none")); err != nil || got != nil {
		t.Errorf("%v, %v", got, err)
	}
	for _, d := range []string{"web/10", "web/2", "web/007", "web/0", "web/+3", "web/x", "db.x/1", "empty"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"desired.json", "web/4"} {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := Instances(dir); err != nil || !slices.Equal(got, []string{"db.x/1", "web/2", "web/10"}) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestMergeOutput(t *testing.T) {
	logs, services := t.TempDir(), t.TempDir()
	member := "127.0.0.1:7400"
	write(t, filepath.Join(logs, "127.0.0.1_7400.log"), line(at(50), member, "m50")+line(at(350), member, "m350"))
	w1, w2, db := newProgram(t, services, "web/1", keepAll), newProgram(t, services, "web/2", keepAll), newProgram(t, services, "db/1", keepAll)
	if err := os.MkdirAll(filepath.Join(services, "quiet/1"), 0o700); err != nil {
		t.Fatal(err)
	}
	w1.print(at(100), "a100\n")
	w2.print(at(200), "b200\n{}\n")
	w1.print(at(300), "a300\n")
	db.print(at(400), "d400\n")
	w1.print(at(500), "a500")
	for _, c := range []struct {
		q    Query
		want string
	}{
		{Query{Directory: logs, Services: services, Tail: -1}, "m50 a100 b200 {} a300 m350 d400 a500"},
		{Query{Services: services, Tail: -1}, "a100 b200 {} a300 d400 a500"},
		{Query{Directory: logs, Tail: -1}, "m50 m350"},
		{Query{Services: services, Names: []string{"web"}, Tail: -1}, "a100 b200 {} a300 a500"},
		{Query{Services: services, Names: []string{"web/2", "db"}, Tail: -1}, "b200 {} d400"},
		{Query{Directory: logs, Addresses: []string{member}, Services: services, Names: []string{"web/2"}, Tail: -1}, "m50 b200 {} m350"},
		{Query{Directory: logs, Addresses: []string{"127.0.0.1:9"}, Services: services, Names: []string{"we"}, Tail: -1}, ""},
		{Query{Directory: logs, Services: services, Tail: 3}, "m350 d400 a500"},
		{Query{Services: services, Tail: 4}, "{} a300 d400 a500"},
		{Query{Services: services, Tail: 0}, ""},
		{Query{Services: services, Tail: -1, Since: at(300)}, "a300 d400 a500"},
		{Query{Directory: logs, Services: services, Tail: 2, Since: at(350)}, "d400 a500"},
		{Query{Directory: logs, Services: services, Tail: 9, Since: at(350)}, "m350 d400 a500"},
		{Query{Directory: logs + "/none", Services: services, Tail: 1}, "a500"},
		{Query{File: filepath.Join(logs, "127.0.0.1_7400.log"), Addresses: []string{member}, Services: services, Tail: 3}, "m350 d400 a500"},
	} {
		if got := messages(show(t, c.q)); got != c.want {
			t.Errorf("%+v shows %q, want %q", c.q, got, c.want)
		}
	}
	v := New(Query{Directory: logs + "/none", Services: services + "/none", Tail: -1})
	defer v.Close()
	if err := v.Show(t.Context(), func(*Entry) error { return nil }); err == nil {
		t.Error("nothing at all is no error")
	}
}

// The lines of an instance stay in order when the clock goes back.
func TestClockGoesBack(t *testing.T) {
	services := t.TempDir()
	p, other := newProgram(t, services, "web/1", keepAll), newProgram(t, services, "web/2", keepAll)
	p.print(at(5000), "one\n")
	other.print(at(3000), "other\n")
	p.print(at(1000), "two\n")
	p.print(at(6000), "three\n")
	es := show(t, Query{Services: services, Tail: -1})
	if got := messages(es); got != "other one two three" {
		t.Fatal(got)
	}
	if !es[2].At.Equal(at(1000)) {
		t.Errorf("the line has the time %v", es[2].At)
	}
}

// An unfinished line is shown when it does not grow, and its continuation is shown later.
func TestUnfinishedLine(t *testing.T) {
	services := t.TempDir()
	p := newProgram(t, services, "web/1", keepAll)
	p.write("pass")
	v := New(Query{Services: services, Tail: -1})
	defer v.Close()
	if got := showIn(t, v); len(got) != 1 || got[0].Message != "pass" || !got[0].Partial {
		t.Fatalf("at first: %+v", got)
	}
	for i, step := range []struct {
		write string
		want  []string // "~" stands for a missing line end
	}{
		{"word: ", nil},
		{"", []string{"word: ~"}},
		{"", nil},
		{"ok\nnext", []string{"ok"}},
		{"\nline", []string{"next"}}, // it has the same length as before
		{"s\n", []string{"lines"}},
		{"x", nil},
		{"y", nil},
		{"", []string{"xy~"}},
		{"\n", []string{""}}, // the end of the line that was shown
	} {
		p.write(step.write)
		var got []string
		for _, e := range pass(t, v) {
			got = append(got, e.Message+map[bool]string{true: "~"}[e.Partial])
		}
		if !slices.Equal(got, step.want) {
			t.Errorf("step %d shows %q, want %q", i, got, step.want)
		}
	}
}

// The last entry of a member waits for its other lines.
func TestUnfinishedEntry(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "127.0.0.1_7400.log")
	v := New(Query{Directory: dir, Tail: -1})
	defer v.Close()
	for i, step := range []struct {
		write string
		want  string
	}{
		{line(at(0), "127.0.0.1:7400", "one"), ""},
		{"  | more\n", ""},
		{"", "one"},
		{line(at(1), "127.0.0.1:7400", "two") + line(at(2), "127.0.0.1:7400", "three"), "two"},
		{"", "three"},
		{"", ""},
	} {
		write(t, path, step.write)
		if got := messages(pass(t, v)); got != step.want {
			t.Errorf("step %d shows %q, want %q", i, got, step.want)
		}
	}
}

// Missing output has an entry of its own.
func TestGap(t *testing.T) {
	services := t.TempDir()
	p := newProgram(t, services, "web/1", output.Limits{MaxBytes: 16 << 10})
	p.print(at(100), "first\n")
	v := New(Query{Services: services, Tail: -1})
	defer v.Close()
	if got := messages(showIn(t, v)); got != "first" {
		t.Fatal(got)
	}
	for i := range 64 {
		p.print(at(200+100*i), strings.Repeat("x", 1023)+"\n")
	}
	es := pass(t, v)
	if len(es) < 2 || !es[0].Gap || es[0].Message != gapMessage || es[0].Raw != "" {
		t.Fatalf("%d entries, the first is %+v", len(es), es[0])
	}
	for _, e := range es[1:] {
		if e.Gap {
			t.Error("a second gap")
		}
	}
	if got := es[0].JSON(); !strings.Contains(got, `"gap":true`) {
		t.Error(got)
	}
}

// A merge that stops at its deadline goes on from there.
func TestDeadline(t *testing.T) {
	services := t.TempDir()
	a, b := newProgram(t, services, "web/1", keepAll), newProgram(t, services, "web/2", keepAll)
	const lines = 2000
	for i := range lines {
		a.write(fmt.Sprintf("a%d\n", i))
		b.write(fmt.Sprintf("b%d\n", i))
	}
	v := New(Query{Services: services, Tail: -1})
	defer v.Close()
	if err := v.search(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	passes := 0
	for total := 0; total < 2*lines; passes++ {
		before := total
		err := v.merge(t.Context(), tail.settled, start, func(e *Entry) error {
			if want := fmt.Sprintf("%c%d", 'a'+e.Instance[4]-'1', seen[e.Instance]); e.Message != want {
				t.Fatalf("%s shows %q, want %q", e.Instance, e.Message, want)
			}
			seen[e.Instance]++
			total++
			return nil
		})
		if err != nil || total == before {
			t.Fatalf("%d entries, then %v", total, err)
		}
	}
	if passes < 2 {
		t.Error("the deadline has no effect")
	}
}

// follower follows until the test ends, and checks that each instance's lines count from 0.
type follower struct {
	t    *testing.T
	seen chan string // instance and number of each line
	next map[string]int
}

func follow(t *testing.T, v *View) *follower {
	t.Helper()
	f := &follower{t, make(chan string, 1<<16), map[string]int{}}
	emit := func(e *Entry) error { f.seen <- e.Instance + " " + e.Message; return nil }
	if err := v.Show(t.Context(), emit); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- v.Follow(ctx, emit) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if len(f.seen) != 0 {
			t.Errorf("seen in addition: %q", <-f.seen)
		}
		v.Close()
	})
	return f
}

// await waits until an instance has shown n lines.
func (f *follower) await(instance string, n int) {
	f.t.Helper()
	for f.next[instance] < n {
		select {
		case got := <-f.seen:
			id, _, _ := strings.Cut(got, " ")
			if want := fmt.Sprintf("%s %d", id, f.next[id]); got != want {
				f.t.Fatalf("got %q, want %q", got, want)
			}
			f.next[id]++
		case <-time.After(patience):
			f.t.Fatalf("%s has shown %d lines, want %d", instance, f.next[instance], n)
		}
	}
}

// Follow loses and doubles nothing over rotations, takeovers and restarts, and finds what is new.
func TestFollowOutput(t *testing.T) {
	services := filepath.Join(t.TempDir(), "services")
	p := newProgram(t, services, "web/1", keepAll)
	n := 0
	add := func(count int) {
		for range count {
			p.write(fmt.Sprintf("%d\n", n))
			n++
		}
		p.tend(time.Now())
	}
	add(10)
	f := follow(t, New(Query{Services: services, Tail: -1}))
	f.await("web/1", n)
	for range 20 { // some of these rotate while the follower reads
		add(2000)
	}
	f.await("web/1", n)
	if rotated, err := filepath.Glob(p.path + ".0*[0-9]"); err != nil || len(rotated) < 2 {
		t.Fatalf("rotated files: %v, %v", rotated, err)
	}
	add(100)
	p.keep() // a takeover
	add(100)
	f.await("web/1", n)
	p.start() // a restart
	add(100)
	f.await("web/1", n)
	if err := os.Remove(p.path); err != nil {
		t.Fatal(err)
	}
	add(100)
	p.start() // a restart after somebody has deleted the file
	p.keep()
	add(100)
	f.await("web/1", n)

	for _, id := range []string{"web/2", "db/1"} {
		other := newProgram(t, services, id, keepAll)
		other.write("0\n1\n")
		f.await(id, 2)
	}
}

// TestFollowUntil: when the end is known, everything that exists is shown once, also an unfinished
// line and the output of an instance that is found only then.
func TestFollowUntil(t *testing.T) {
	dir := t.TempDir()
	old := newProgram(t, dir, "web/1", output.Limits{})
	old.write("before\n")
	v := New(Query{Services: dir})
	defer v.Close()
	if err := v.Show(t.Context(), func(*Entry) error { return nil }); err != nil {
		t.Fatal(err)
	}
	old.write("line\nunfinished")
	ended := make(chan struct{})
	close(ended)
	var seen []string
	emit := func(e *Entry) error {
		if len(seen) == 0 { // after the search for instances
			newProgram(t, dir, "new/1", output.Limits{}).write("late")
		}
		seen = append(seen, e.Instance+" "+e.Message)
		return nil
	}
	if err := v.FollowUntil(t.Context(), ended, emit); err != nil {
		t.Fatal(err)
	}
	slices.Sort(seen)
	if want := []string{"new/1 late", "web/1 line", "web/1 unfinished"}; !slices.Equal(seen, want) {
		t.Errorf("seen %q, want %q", seen, want)
	}
}

// A directory that was removed and made again has new output.
func TestFollowRemovedDirectory(t *testing.T) {
	services := t.TempDir()
	v := New(Query{Services: services, Tail: -1, Directory: filepath.Join(services, "logs")})
	defer v.Close()
	for range 2 {
		if got := messages(pass(t, v)); got != "" {
			t.Errorf("nothing shows %q", got)
		}
		dir := filepath.Join(services, "web/1")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if got := messages(pass(t, v)); got != "" { // there is no file yet
			t.Errorf("an empty directory shows %q", got)
		}
		write(t, filepath.Join(dir, outputName), "one\ntwo\n")
		if got := messages(pass(t, v)); got != "one two" {
			t.Errorf("got %q", got)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOutputJSON(t *testing.T) {
	for text, want := range map[string]string{
		"plain":                  "plain",
		`{"a":"<b>"}`:            `{"a":"<b>"}`,
		"\x1b[31m\x7f\u009b\t\"": "\x1b[31m\x7f\u009b\t\"",
		"\xff":                   "\ufffd",
	} {
		e := Entry{At: at(1), Instance: "web/1", Message: text, Raw: text}
		line := e.JSON()
		var got map[string]any
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if len(got) != 3 || got["at"] != "2026-01-02T03:04:05.001Z" || got["instance"] != "web/1" || got["text"] != want {
			t.Errorf("%q becomes %s", text, line)
		}
		if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) {
			t.Errorf("%q becomes %q, which has control characters", text, line)
		}
	}
}
