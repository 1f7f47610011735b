package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/dynast-io/dynast/shared/rules/entry"
)

// TestAnyFlippedBitIsFound: a bit is flipped at thousands of places of a database. Either it is
// found before the file is opened, or the file can be opened, read, written, closed and opened
// again. A crash would end the test.
func TestAnyFlippedBitIsFound(t *testing.T) {
	if dir := os.Getenv("STORE_TEST_CHILD"); dir != "" {
		oneBit(t, dir)
		os.Exit(wantedExit)
	}
	child(t, t.TempDir(), wantedExit)
}

func oneBit(t *testing.T, dir string) {
	seed := rand.Uint64()
	fmt.Println("seed", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	s, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		feed(t, s, 1, put(t, fmt.Sprint("key", i%90), fmt.Sprintf("%0*d", 20+i%200, i)))
		if i%40 == 0 {
			s.Commit()
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(Path(dir))
	if err != nil {
		t.Fatal(err)
	}
	m, ok := readMeta(whole)
	if !ok {
		t.Fatal("no meta page")
	}
	whole = whole[:m.limit*m.pageBytes]
	looked, found, used := 0, 0, 0
	const uses = 40
	rewrite := func() {
		if err := os.WriteFile(Path(dir), whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rewrite()
	for pos := rng.IntN(12); pos < len(whole); pos += 1 + rng.IntN(24) {
		bit := byte(1) << rng.IntN(8)
		whole[pos] ^= bit
		poke(t, dir, pos, whole[pos])
		err := verify(Path(dir), 0)
		looked++
		switch {
		case errors.Is(err, ErrCorrupt):
			found++
		case err != nil:
			t.Fatalf("byte %d: %v", pos, err)
		case rng.IntN(len(whole)/12) < 2*uses:
			used++
			use(t, dir, pos)
			whole[pos] ^= bit
			rewrite()
			continue
		}
		whole[pos] ^= bit
		poke(t, dir, pos, whole[pos])
	}
	fmt.Println(looked, "places,", found, "found,", used, "used")
	if looked < 1000 || found < looked/25 || used < uses/3 {
		t.Fatalf("%d places, %d found, %d used: is that a test?", looked, found, used)
	}
}

// poke writes one byte of the file.
func poke(t *testing.T, dir string, pos int, b byte) {
	t.Helper()
	f, err := os.OpenFile(Path(dir), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt([]byte{b}, int64(pos))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// use does with a store what its users do.
func use(t *testing.T, dir string, pos int) {
	t.Helper()
	for range 2 {
		s, err := Open(Config{Dir: dir})
		if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNewer) {
			return // found later, and said
		}
		if err != nil {
			t.Fatalf("byte %d: %v", pos, err)
		}
		at := s.Applied()
		for i := range 30 {
			d := put(t, fmt.Sprint("key", i*3), "new")
			if i%3 == 0 {
				d = data(t, &pb.InternalRaftRequest{DeleteRange: &pb.DeleteRangeRequest{Key: []byte(fmt.Sprint("key", i)), RangeEnd: []byte(fmt.Sprint("key", i, "x"))}})
			}
			at.Index++
			if _, err := s.Apply(entry.Entry{Index: at.Index, Epoch: max(at.Epoch, 1), Data: d}); err != nil {
				if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrBroken) {
					t.Fatalf("byte %d: apply: %v", pos, err)
				}
				_ = s.Close()
				_ = os.Remove(Path(dir)) // a store that broke keeps the file open
				return
			}
		}
		s.Commit()
		if err := s.Close(); err != nil {
			t.Fatalf("byte %d: close: %v", pos, err)
		}
	}
}
