package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/prove/chaos"
)

// anywhere damages one file of a slot at a random place, and describes the damage. It does not
// change a bit within a value: no database of this kind has checksums, and only a comparison with
// other replicas finds such a change.
func anywhere(t *testing.T, rng *rand.Rand, s datadir.Slot) string {
	t.Helper()
	files := segments(t, s)
	path := files[rng.IntN(len(files))]
	db := rng.IntN(2) == 0
	if db {
		path = database(s)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := rng.Int64N(int64(len(bytes.TrimRight(raw, "\x00")))) // within the written part
	switch rng.IntN(4) {
	case 0:
		removeAll(t, path)
		return path + " is deleted"
	case 1:
		if err := os.Truncate(path, at); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%s is cut at %d", path, at)
	case 2:
		if err := chaos.Scribble(rng, path, at&^4095); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%s has noise at %d", path, at&^4095)
	}
	if db {
		at = at&^4095 + at%16 // within a page's header
	}
	raw[at] ^= 1 << rng.IntN(8)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt(raw[at:at+1], at)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s has a flipped bit at %d", path, at)
}

// TestDamageAnywhere kills all processes and damages files of the named slot, or of all other
// slots, at random places. The cluster starts with every acknowledged write, because the damaged
// slots get their data from the good ones.
func TestDamageAnywhere(t *testing.T) {
	_, rng := seeded(t)
	c := start(t)
	cl, all := c.dial(), stored{}
	all.write(t, cl, "first", 50)
	for i := range rounds(6) {
		tr := c.full()
		last := leaderOf(tr).Index
		eventually(t, "the followers have all entries of the leader", func() bool {
			if tr = c.tree(); tr == nil {
				return false
			}
			for _, m := range tr.Members {
				if m.Index < last {
					return false
				}
			}
			return true
		})
		tr = c.killAll()
		victims := followersOf(tr)
		if i%2 == 0 {
			victims = victims[:0]
			victims = append(victims, leaderOf(tr))
		}
		for _, v := range victims {
			t.Logf("round %d, %s: %s", i, v.Role, anywhere(t, rng, c.openDir().Slot(v.Slot)))
		}
		c.up()
		c.full()
		cl = c.dial()
		all.check(t, cl)
		all.write(t, cl, fmt.Sprint("round", i), 10)
	}
	for _, bad := range []string{"\ngoroutine ", "unexpected fault"} {
		if strings.Contains(c.logText(), bad) {
			t.Errorf("the log contains %q", bad)
		}
	}
}
