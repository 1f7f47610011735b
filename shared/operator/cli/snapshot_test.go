package cli

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/dynast-io/dynast/shared/replica/restore"
)

// Everything that etcdctl prints before it has saved a snapshot is passed on.
func TestPassOn(t *testing.T) {
	for _, c := range []struct {
		writes     []string
		file, said string
	}{
		{[]string{"Password: ", "\n", "Snapshot saved at /a b.db\n", "Server version 3.7.0\n"}, "/a b.db", "Password: \n"},
		{[]string{"Snapshot saved at x\nServer version 3.7.0\n"}, "x", ""},
		{[]string{"Usage:\n", "  snapshot save\n"}, "", "Usage:\n  snapshot save\n"},
	} {
		r, w := io.Pipe()
		go func() {
			for _, text := range c.writes {
				_, _ = io.WriteString(w, text)
			}
			_ = w.Close()
		}()
		var said bytes.Buffer
		if file := passOn(&said, r); file != c.file || said.String() != c.said {
			t.Errorf("%q: file %q, passed on %q", c.writes, file, &said)
		}
	}
}

// Each note of a restore is printed if it applies, and only then.
func TestPrintRestored(t *testing.T) {
	for _, c := range []struct {
		res  restore.Result
		want []string
		not  []string
	}{
		{restore.Result{DataDir: "/d", Revision: 7, Keys: 3, UsedBytes: 99}, []string{"restored f to /d", "revision 7", "3 keys", "auth off", "dynast up --data-dir /d"}, []string{"note:", "log"}},
		{restore.Result{Replayed: 5, Uncommitted: 1, Members: 3, AuthEnabled: true}, []string{"5 entries came from the log; 1 of them", "one of 3 members", "auth on"}, []string{"CORRUPT", "quota"}},
		{restore.Result{Corrupt: true, UsedBytes: 100}, []string{"CORRUPT", "alarm disarm", "store.quota is 100"}, []string{"members"}},
	} {
		var b bytes.Buffer
		printRestored(&b, "f", &c.res, 100)
		for _, w := range c.want {
			if !strings.Contains(b.String(), w) {
				t.Errorf("%+v: %q is missing in\n%s", c.res, w, &b)
			}
		}
		for _, n := range c.not {
			if strings.Contains(b.String(), n) {
				t.Errorf("%+v: %q is in\n%s", c.res, n, &b)
			}
		}
	}
}
