package state

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/dynast-io/dynast/shared/rules/core"
)

// A database page that cannot be read ends the process with the exit code for a corrupt copy,
// whichever goroutine reads it. Any other panic is a program error.
func TestGuardedTellsDamageFromProgramErrors(t *testing.T) {
	for name, test := range map[string]struct {
		do   func()
		want core.ExitCode
	}{
		"a damaged page": {readDamaged(t), core.ExitCorrupt},
		"a bug":          {func() { panic("a bug") }, core.ExitError},
	} {
		told := ""
		f := NewFate(func(_ core.ExitCode, reason string) { told = reason })
		f.Guarded(test.do)
		select {
		case <-f.Ended():
		default:
			t.Fatalf("%s: the process did not end", name)
		}
		if f.Code() != test.want {
			t.Errorf("%s: exit code %d, want %d", name, f.Code(), test.want)
		}
		if f.Lifetime().Err() == nil || !strings.Contains(told, "fatal: ") {
			t.Errorf("%s: reason %q", name, told)
		}
	}
}

// readDamaged returns a function that reads a database with all but its first pages overwritten.
func readDamaged(t *testing.T) func() {
	path := filepath.Join(t.TempDir(), "db")
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	err = db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte("key"))
		if err != nil {
			return err
		}
		return b.Put([]byte("k"), []byte(strings.Repeat("v", 100_000)))
	})
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page := int64(os.Getpagesize())
	if _, err := f.WriteAt([]byte(strings.Repeat("\xaa", int(st.Size()-2*page))), 2*page); err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = db.View(func(tx *bolt.Tx) error { tx.Bucket([]byte("key")).Get([]byte("k")); return nil })
	}
}
