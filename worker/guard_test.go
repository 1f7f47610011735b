package worker

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	bolt "go.etcd.io/bbolt"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/datadir"
	"github.com/dynast-io/dynast/shared/roster"
)

// TestDamageThatAnyGoroutineFinds: a page that cannot be read ends the process as
// a corrupt copy, wherever it is read; anything else is a fault of the program.
func TestDamageThatAnyGoroutineFinds(t *testing.T) {
	for name, test := range map[string]struct {
		do   func()
		want core.ExitCode
	}{
		"a damaged page": {readDamaged(t), core.ExitCorrupt},
		"a bug":          {func() { panic("a bug") }, core.ExitError},
	} {
		m := &Member{logger: hclog.NewNullLogger(), mail: newMailbox(), ended: make(chan struct{})}
		dir, err := datadir.Open(filepath.Join(t.TempDir(), "data"), true)
		if err != nil {
			t.Fatal(err)
		}
		m.dir = dir
		m.history = newEventHistory(m)
		defer m.history.rec.Close(time.Minute)
		m.published.Store(&published{roster: &roster.Roster{}})
		m.guarded(test.do)
		select {
		case <-m.ended:
		default:
			t.Fatalf("%s: it goes on", name)
		}
		if m.exitCode != test.want {
			t.Errorf("%s: exit code %d, want %d", name, m.exitCode, test.want)
		}
	}
}

// readDamaged reads a database of which all but the first pages were overwritten.
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
