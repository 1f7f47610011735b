package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/mvcc"

	"github.com/dynast-io/dynast/shared/rules/entry"
)

// filled makes a database with content of all kinds: many pages, big values, free pages,
// leases, tombstones.
func filled(t testing.TB, dir string) {
	t.Helper()
	s, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if s.Lessor().Lookup(7) == nil {
		feed(t, s, 1, data(t, &pb.InternalRaftRequest{LeaseGrant: &pb.LeaseGrantRequest{ID: 7, TTL: 60}}))
	}
	for i := range 3000 {
		size := 10 + i%100
		if i%500 == 0 {
			size = 20000
		}
		feed(t, s, 1, put(t, fmt.Sprint("key", i%700), strings.Repeat("v", size)))
		if i%100 == 0 {
			s.Commit()
		}
	}
	feed(t, s, 1, data(t, &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte("leased"), Lease: 7}}))
	feed(t, s, 1, data(t, &pb.InternalRaftRequest{DeleteRange: &pb.DeleteRangeRequest{Key: []byte("key1"), RangeEnd: []byte("key2")}}))
	res, err := s.Apply(entry.Entry{Index: s.Applied().Index + 1, Epoch: 1,
		Data: data(t, &pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: s.Revision() - 2000}})})
	if err != nil || res.Err != nil {
		t.Fatal(err, res)
	}
	<-res.Physc
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestVerifyAcceptsIntactFiles(t *testing.T) {
	dir := t.TempDir()
	for range 3 {
		filled(t, dir)
		if err := verify(Path(dir), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := verify(Path(t.TempDir()), 0); err != nil {
		t.Fatalf("no file: %v", err)
	}
}

func TestOpenEmptyFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(Path(dir), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	feed(t, open(t, dir), 1, put(t, "a", "1"))
}

// TestDamage: after any damage to a file, opening it fails with ErrCorrupt and leaves it
// unchanged, or it works. A crash would end the test.
func TestDamage(t *testing.T) {
	if dir := os.Getenv("STORE_TEST_CHILD"); dir != "" {
		damage(t, dir)
		os.Exit(wantedExit)
	}
	child(t, t.TempDir(), wantedExit)
}

func damage(t *testing.T, dir string) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("STORE_TEST_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	fmt.Println("seed", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	filled(t, dir)
	whole, err := os.ReadFile(Path(dir))
	if err != nil {
		t.Fatal(err)
	}
	m, ok := readMeta(whole)
	if !ok {
		t.Fatal("no meta page")
	}
	whole = whole[:m.limit*m.pageBytes] // the rest of the file was never written
	corrupt := 0
	const rounds = 160
	for i := range rounds {
		bad := spoil(r, whole, i)
		if err := os.WriteFile(Path(dir), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(Config{Dir: dir})
		if err == nil {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if !errors.Is(err, ErrCorrupt) {
			t.Fatalf("seed %d, %d: %v", seed, i, err)
		}
		corrupt++
		if after, err := os.ReadFile(Path(dir)); err != nil || string(after) != string(bad) {
			t.Fatalf("seed %d, %d: a corrupt file was changed: %v", seed, i, err)
		}
		// A store that failed late may still hold the file.
		if err := os.Remove(Path(dir)); err != nil {
			t.Fatal(err)
		}
	}
	// The other changes hit free pages, or bytes of a value.
	if corrupt < rounds/4 {
		t.Fatalf("only %d of %d damages were found: are they damages?", corrupt, rounds)
	}
	fmt.Println("corrupt:", corrupt)
}

// spoil returns a damaged copy.
func spoil(r *rand.Rand, whole []byte, kind int) []byte {
	const page = 4096
	bad := append([]byte(nil), whole...)
	somePage := func() []byte { return bad[page*r.IntN(len(bad)/page):][:page] }
	switch kind % 8 {
	case 0: // cut off
		return bad[:r.IntN(len(bad))]
	case 1: // a page lost
		clear(somePage())
	case 2: // a page in the place of another
		copy(somePage(), somePage())
	case 3: // flipped bits in many pages
		for range 100 {
			bad[r.IntN(len(bad))] ^= 1 << r.IntN(8)
		}
	case 4: // both meta pages lost
		clear(bad[:2*page])
	case 5: // a page header
		p := somePage()
		p[r.IntN(16)] ^= byte(1 + r.IntN(255))
	case 6: // an element of a page's table
		p := somePage()
		binary.LittleEndian.PutUint32(p[16+4*r.IntN(40):], r.Uint32()>>r.IntN(32))
	case 7: // noise
		p := somePage()
		for i := range p {
			p[i] = byte(r.Uint32())
		}
	}
	return bad
}

// A flipped bit can make a revision negative. etcd would panic at it while it opens the
// database, where nobody can recover.
func TestNegativeRevisionsAreRefused(t *testing.T) {
	revision := func(main, sub int64) []byte {
		return mvcc.RevToBytes(mvcc.Revision{Main: main, Sub: sub}, mvcc.NewRevBytes())
	}
	for _, key := range [][]byte{revision(1, 0), revision(math.MaxInt64, 7), append(revision(3, 2), 't')} {
		if !isRevision(key) {
			t.Errorf("%x is refused", key)
		}
		for _, at := range []int{0, 9} {
			flipped := bytes.Clone(key)
			flipped[at] ^= 0x80
			if isRevision(flipped) {
				t.Errorf("%x is taken for a revision", flipped)
			}
		}
	}
}
