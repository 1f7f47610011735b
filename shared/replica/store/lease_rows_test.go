package store

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/lease"

	"github.com/dynast-io/dynast/shared/rules/entry"
)

// openQuiet opens a store that does not commit by itself.
func openQuiet(t *testing.T, dir string) leases {
	t.Helper()
	s, err := Open(Config{Dir: dir, CommitInterval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return leases{Store: s, t: t}
}

func TestRevocationIsNoCommit(t *testing.T) {
	s := openQuiet(t, t.TempDir())
	s.apply(grantOf(1, 60), grantOf(2, 60))
	s.Commit()
	committed := s.Durable()
	s.apply(revokeOf(1))
	if s.Durable() != committed {
		t.Error("the revocation of a lease was a commit")
	}
	s.Commit()
	if s.Durable() != s.Applied() {
		t.Errorf("committed up to %s, applied up to %s", s.Durable(), s.Applied())
	}
	if again := openQuiet(t, copyOf(t, s)); again.Lessor().Lookup(1) != nil || again.Lessor().Lookup(2) == nil {
		t.Error("the file has a revoked lease, or lacks another")
	}
}

func TestManyLeasesAreCommittedEarly(t *testing.T) {
	s := openQuiet(t, t.TempDir())
	for id := range int64(maxLeaseRows) {
		s.apply(grantOf(id+1, 60))
	}
	if s.Durable() != s.Applied() {
		t.Errorf("committed up to %s, applied up to %s", s.Durable(), s.Applied())
	}
}

// copyOf copies the file of a store as a killed process would leave it.
func copyOf(t *testing.T, s leases) (dir string) {
	t.Helper()
	dir = t.TempDir()
	b, err := os.ReadFile(Path(s.cfg.Dir))
	if err == nil {
		err = os.WriteFile(Path(dir), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// The file always has the leases up to its own index, whenever the process is killed. Entries
// that are applied again lead to the same leases.
func TestLeaseRowsMatchTheIndex(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	s := openQuiet(t, t.TempDir())
	var entries []entry.Entry
	want := []string{leasesOf(s)} // by index
	for i := range uint64(500) {
		id := int64(r.IntN(10) + 1)
		request := grantOf(id, int64(10+r.IntN(100)))
		switch r.IntN(4) {
		case 0:
			request = revokeOf(id)
		case 1:
			request = checkpointOf(id, int64(r.IntN(10)))
		}
		e := entry.Entry{Index: i + 1, Epoch: 1, Data: data(t, request)}
		if _, err := s.Apply(e); err != nil {
			t.Fatal(err)
		}
		entries, want = append(entries, e), append(want, leasesOf(s))
		if r.IntN(20) == 0 {
			s.Commit()
		}
		if r.IntN(20) != 0 {
			continue
		}
		again := openQuiet(t, copyOf(t, s))
		n := again.Applied().Index
		if got := leasesOf(again); got != want[n] {
			t.Fatalf("after entry %d:\ngot  %s\nwant %s", n, got, want[n])
		}
		for _, e := range entries[n:] {
			if _, err := again.Apply(e); err != nil {
				t.Fatal(err)
			}
		}
		if got := leasesOf(again); got != want[i+1] {
			t.Fatalf("applied again up to entry %d:\ngot  %s\nwant %s", i+1, got, want[i+1])
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// leasesOf describes all leases, with the remaining times that the log holds.
func leasesOf(s leases) string {
	all := map[lease.LeaseID]string{}
	for _, l := range s.Lessor().Leases() {
		all[l.ID] = fmt.Sprint(l.TTL(), s.Lessor().Covered(l))
	}
	out := ""
	for id := lease.LeaseID(1); id <= 10; id++ {
		if text, ok := all[id]; ok {
			out += fmt.Sprintf("%d: %s; ", id, text)
		}
	}
	return out
}
