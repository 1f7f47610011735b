package proc

import (
	"strings"
	"testing"
)

// FuzzParseOwner: any program may have written a lock file. A returned pid is valid.
func FuzzParseOwner(f *testing.F) {
	f.Add("123 456\npid 123 (dynast)\nThe lock is not this file.\n")
	f.Add("")
	f.Add("-1 5\na\nb\n")
	f.Add("0 0\n\n\n")
	f.Add("99999999999999999999 1\nx\ny\n")
	f.Add("1 2 3\npid\n\x00\n")
	f.Fuzz(func(t *testing.T, raw string) {
		o, err := parseOwner("lock", raw)
		if err != nil {
			if !strings.Contains(err.Error(), "lock") || o != (Owner{}) {
				t.Errorf("%q: %+v, %v", raw, o, err)
			}
			return
		}
		if o.Identity.PID <= 0 {
			t.Errorf("%q: pid %d", raw, o.Identity.PID)
		}
		if strings.ContainsAny(o.Text, "\n\x00\x1b") {
			t.Errorf("%q: the owner's text %q is no line for people", raw, o.Text)
		}
	})
}
