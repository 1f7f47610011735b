package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/dynast-io/dynast/shared/replica/restore"
)

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
