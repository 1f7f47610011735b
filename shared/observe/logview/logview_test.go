package logview

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dynast-io/dynast/shared/observe/logging"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

// logged returns what package logging writes for a few lines that are hard to parse.
func logged(t *testing.T, format string) string {
	t.Helper()
	var out bytes.Buffer
	l, err := logging.New(logging.Options{Level: "debug", Format: format, Stderr: &out, Address: "127.0.0.1:7401"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetEpoch(18446744073709551615)
	log := l.Logger("worker")
	log.Info("plain")
	log.Warn("disk full: writes are refused", "free_bytes", 5, "path", "/a b/c", "empty", "", "quote", `say "x=1"`)
	log.Error("ends", "code", 1, "reason", "fatal: it broke\ngoroutine 1:\n\tmain.go:3")
	log.Debug("list", "members", []string{"a", "b"})
	l.Logger("a.b").Info("ümläut", "k", "v=w")
	if err := l.Close(patience); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func entries(t *testing.T, text string) []*Entry {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return show(t, Query{File: path, Tail: -1})
}

func show(t *testing.T, q Query) []*Entry {
	t.Helper()
	v := New(q)
	defer v.Close()
	var out []*Entry
	if err := v.Show(t.Context(), func(e *Entry) error { out = append(out, e); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

// An entry logged in one format and shown in the other looks as if it had been logged there.
func TestBothFormats(t *testing.T) {
	text, asJSON := entries(t, logged(t, "text")), entries(t, logged(t, "json"))
	if len(text) != 5 || len(asJSON) != 5 {
		t.Fatalf("%d and %d entries, want 5", len(text), len(asJSON))
	}
	for i := range text {
		var a, b map[string]any
		for in, out := range map[string]*map[string]any{text[i].JSON(): &a, asJSON[i].JSON(): &b} {
			if err := json.Unmarshal([]byte(in), out); err != nil {
				t.Fatalf("%s: %v", in, err)
			}
			delete(*out, "@timestamp")
		}
		if i == 3 { // a list has no JSON form in text
			delete(a, "members")
			delete(b, "members")
		}
		if !reflect.DeepEqual(a, b) {
			t.Errorf("from text %v, from JSON %v", a, b)
		}
		from, to := asJSON[i].Text(), text[i].Text()
		to = strings.TrimRight(strings.ReplaceAll(to, `\t`, "\t"), "\n ")
		if strip := func(s string) string { return s[strings.Index(s, "["):] }; i != 3 && !sameFields(strip(from), strip(to)) {
			t.Errorf("from JSON\n%s\nfrom text\n%s", from, to)
		}
		if text[i].Address != "127.0.0.1:7401" || asJSON[i].Address != "127.0.0.1:7401" || text[i].At.IsZero() {
			t.Errorf("entry %d: %+v", i, text[i])
		}
	}
}

// sameFields compares lines whose fields may be in another order.
func sameFields(a, b string) bool {
	count := func(s string) map[string]int {
		m := map[string]int{}
		for _, w := range strings.Fields(s) {
			m[w]++
		}
		return m
	}
	return reflect.DeepEqual(count(a), count(b))
}

// An entry whose format is the requested one is shown as it was written.
func TestEntryInItsOwnFormatIsUnchanged(t *testing.T) {
	text := logged(t, "text") + "panic: boom\n\ngoroutine 1 [running]:\n"
	var out strings.Builder
	for _, e := range entries(t, text) {
		out.WriteString(e.Text() + "\n")
	}
	if out.String() != text {
		t.Errorf("got\n%s\nwant\n%s", out.String(), text)
	}
}

func line(at time.Time, address, message string) string {
	return fmt.Sprintf("%s [INFO]  worker: %s: address=%s epoch=1\n", at.UTC().Format(TimeFormat), message, address)
}

func messages(es []*Entry) string {
	var out []string
	for _, e := range es {
		out = append(out, e.Message)
	}
	return strings.Join(out, " ")
}

func write(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func at(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }

func TestMerge(t *testing.T) {
	dir := t.TempDir()
	a, b := "127.0.0.1:7400", "127.0.0.1:7401"
	write(t, filepath.Join(dir, "127.0.0.1_7400-2026-01-02T03-04-05.500.log"), line(at(0), a, "m0")+line(at(20), a, "m2"))
	write(t, filepath.Join(dir, "127.0.0.1_7400.log"), "  | of m2\n"+line(at(40), a, "m4")+line(at(35), a, "m3.5"))
	write(t, filepath.Join(dir, "127.0.0.1_7401.log"), line(at(10), b, "m1")+line(at(30), b, "m3"))
	write(t, filepath.Join(dir, "notes.txt"), "not a log\n")
	for _, c := range []struct {
		q    Query
		want string
	}{
		{Query{Tail: -1}, "m0 m1 m2 m3 m3.5 m4"},
		{Query{Tail: 2}, "m3.5 m4"},
		{Query{Tail: 0}, ""},
		{Query{Tail: -1, Addresses: []string{b}}, "m1 m3"},
		{Query{Tail: -1, Since: at(20)}, "m2 m3 m3.5 m4"},
		{Query{Tail: -1, Addresses: []string{"127.0.0.1:9"}}, ""},
	} {
		c.q.Directory = dir
		if got := messages(show(t, c.q)); got != c.want {
			t.Errorf("%+v shows %q, want %q", c.q, got, c.want)
		}
	}
	if got, err := Members(dir); err != nil || !reflect.DeepEqual(got, []string{"127.0.0.1_7400", "127.0.0.1_7401"}) {
		t.Errorf("members %v, %v", got, err)
	}
	// One file has the lines of all members, as a redirected standard error does.
	all := filepath.Join(t.TempDir(), "stderr")
	write(t, all, line(at(0), a, "x0")+line(at(2), b, "x2")+line(at(1), a, "x1"))
	if got := messages(show(t, Query{File: all, Tail: -1})); got != "x0 x1 x2" {
		t.Errorf("%q", got)
	}
	if got := messages(show(t, Query{File: all, Tail: -1, Addresses: []string{a}})); got != "x0 x1" {
		t.Errorf("%q", got)
	}
	if _, err := Members(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory is %v", err)
	}
}

// Follow continues over a rotation and sees members that begin later.
func TestFollow(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "127.0.0.1_7400.log")
	write(t, path, line(at(0), "127.0.0.1:7400", "before"))
	v := New(Query{Directory: dir, Tail: -1})
	defer v.Close()
	seen := make(chan string, 100)
	emit := func(e *Entry) error {
		seen <- strings.ReplaceAll(e.Message+e.Raw[strings.Index(e.Raw+"\n", "\n"):], "\n", "")
		return nil
	}
	if err := v.Show(t.Context(), emit); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- v.Follow(ctx, emit) }()
	expect := func(want string) {
		t.Helper()
		select {
		case got := <-seen:
			if got != want {
				t.Fatalf("got %q, want %q", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("%q is never seen", want)
		}
	}
	expect("before")
	write(t, path, line(at(1), "127.0.0.1:7400", "one")+"  | more\n")
	expect("one  | more")
	write(t, path, line(at(2), "127.0.0.1:7400", "two"))
	if err := os.Rename(path, filepath.Join(dir, "127.0.0.1_7400-2026-01-02T03-04-05.500.log")); err != nil {
		t.Fatal(err)
	}
	write(t, path, line(at(3), "127.0.0.1:7400", "three"))
	expect("two")
	expect("three")
	write(t, filepath.Join(dir, "127.0.0.1_7401.log"), line(at(4), "127.0.0.1:7401", "other"))
	expect("other")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if len(seen) != 0 {
		t.Errorf("seen twice: %q", <-seen)
	}
}

// No line is lost, and no line makes the parser panic.
func FuzzEntries(f *testing.F) {
	f.Add("2026-01-02T03:04:05.000Z [INFO]  worker: m: address=a k=\"v\\\"\" l=[a b]\n  r=\n  | x\n")
	f.Add(`{"@level":"info","@message":"m","@timestamp":"2026-01-02T03:04:05Z","x":[1,{"y":2}]}` + "\n")
	f.Add("{}\n[\n\n] [x]: =\n")
	f.Fuzz(func(t *testing.T, text string) {
		var a assembler
		var raw []string
		keep := func(e *Entry) {
			if e == nil {
				return
			}
			raw = append(raw, e.Raw)
			if !json.Valid([]byte(e.JSON())) {
				t.Errorf("%q becomes no JSON: %s", e.Raw, e.JSON())
			}
			_ = e.Text()
		}
		for _, l := range strings.Split(text, "\n") {
			keep(a.add(l))
		}
		keep(a.flush())
		if got := strings.Join(raw, "\n"); got != text {
			t.Errorf("%q becomes %q", text, got)
		}
	})
}
