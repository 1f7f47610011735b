package log

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
)

// frameOffsets returns where the frames of a segment begin and where the last one ends.
func frameOffsets(data []byte) []int {
	at := []int{0}
	for pos := 0; pos+8 <= len(data); {
		field := binary.LittleEndian.Uint64(data[pos:])
		if field == 0 {
			break
		}
		pos += 8 + int(field&(1<<56-1)) + int(field>>56&7)
		at = append(at, pos)
	}
	return at
}

// closedLog makes a log of n entries, all durable, and returns its options and segments.
func closedLog(t testing.TB, o Options, n uint64) (Options, []segmentName) {
	t.Helper()
	l := mustCreate(t, o, Position{})
	for i := uint64(1); i <= n; i += 5 { // synced, so that each segment confirms those before it
		mustAppend(t, l, testEntries(1, i, min(i+4, n)))
		if _, err := l.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	segs, err := listSegments(o.Dir)
	if err != nil {
		t.Fatal(err)
	}
	return o, segs
}

// isBeginning checks that a read returned a prefix of the true log, or an error that says what
// is wrong.
func isBeginning(t testing.TB, es []Entry, err error, atLeast int) {
	t.Helper()
	if err != nil {
		if !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
		return
	}
	if len(es) < atLeast {
		t.Fatalf("%d entries, at least %d were whole", len(es), atLeast)
	}
	sameEntries(t, es, testEntries(1, 1, uint64(len(es))))
}

func TestTornTailAtEveryByte(t *testing.T) {
	o := testOptions(t)
	o.SegmentBytes = 1 << 20
	o, segs := closedLog(t, o, 29)
	path := filepath.Join(o.Dir, segs[0].String())
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	frames := frameOffsets(data)
	begin, end := frames[len(frames)-2], frames[len(frames)-1]
	for cut := begin; cut <= end; cut++ {
		n := 28
		if cut == end {
			n = 29
		}
		if err := os.WriteFile(path, data[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		es, last, err := Read(o.Dir, Position{}, o)
		if err != nil || last.Index != uint64(n) {
			t.Fatal(cut-begin, last, err)
		}
		sameEntries(t, es, testEntries(1, 1, uint64(n)))
		l, err := Open(o, 0)
		if err != nil {
			t.Fatal(cut-begin, err)
		}
		mustAppend(t, l, testEntries(1, uint64(n)+1, 35))
		l = reopen(t, l, 0)
		sameEntries(t, all(t, l), testEntries(1, 1, 35))
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// The same with the rest unwritten instead of cut off, as a killed writer or a power loss
	// leaves it in preallocated space. Within its last sector it cannot be distinguished from
	// damage.
	for cut := begin; cut < end; cut++ {
		copied := bytes.Clone(data)
		clear(copied[cut:])
		if err := os.WriteFile(path, copied, 0o600); err != nil {
			t.Fatal(err)
		}
		es, _, err := Read(o.Dir, Position{}, o)
		if err != nil && (cut%sectorBytes == 0 || cut/sectorBytes != (end-1)/sectorBytes) {
			t.Fatal(cut-begin, err)
		}
		isBeginning(t, es, err, 28)
	}
}

func TestFlippedByteIsNeverWrongData(t *testing.T) {
	o, segs := closedLog(t, testOptions(t), 140)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	if confirmed, err := confirms(o.Dir, segs[len(segs)-1]); err != nil || !confirmed {
		t.Fatal("the last segment does not confirm the others", err)
	}
	corrupt, short := 0, 0
	for i, seg := range segs {
		path := filepath.Join(o.Dir, seg.String())
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		frames := frameOffsets(data)
		used := frames[len(frames)-1]
		for pos := 0; pos < used; pos += 1 + rng.IntN(20) {
			damaged := bytes.Clone(data)
			damaged[pos] ^= 1 << rng.IntN(8)
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			es, _, err := Read(o.Dir, Position{}, o)
			isBeginning(t, es, err, 0)
			switch {
			case err != nil:
				corrupt++
			case len(es) < 140:
				short++
				if i < len(segs)-1 {
					t.Fatalf("segment %d, byte %d: the rest of the log was dropped silently", i, pos)
				}
			}
			if _, err := LastPosition(o.Dir, o); err != nil && !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d found, %d shortened the log", corrupt, short)
	if corrupt == 0 || short > corrupt/20 {
		t.Fatal("damage is not told from an unfinished end")
	}
}

func TestCorruptLogIsLeftAlone(t *testing.T) {
	o, segs := closedLog(t, testOptions(t), 150)
	path := filepath.Join(o.Dir, segs[1].String())
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	frames := frameOffsets(data)
	data[frames[len(frames)/2]+40] ^= 4
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Open(o, 0)
	if !errors.Is(err, ErrCorrupt) || !bytes.Contains([]byte(err.Error()), []byte(segs[1].String())) {
		t.Fatal(err)
	}
	now, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(now, data) {
		t.Fatal("the damaged segment was changed", err)
	}
	if names, _ := listSegments(o.Dir); len(names) != len(segs) {
		t.Fatal("segments are gone")
	}
}

// A power loss after a segment ended and before the next fsync may remove the end of the old
// segment and keep the new one. If the fsync had completed, the same state would be damage.
func TestPowerLossBetweenSegments(t *testing.T) {
	for _, synced := range []bool{false, true} {
		o := testOptions(t)
		l := mustCreate(t, o, Position{})
		next := uint64(1)
		for len(l.files.segments) < 2 {
			mustAppend(t, l, testEntries(1, next, next))
			next++
		}
		if synced {
			if _, err := l.Sync(); err != nil {
				t.Fatal(err)
			}
		}
		mustAppend(t, l, testEntries(1, next, next+9))
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		segs, _ := listSegments(o.Dir)
		path := filepath.Join(o.Dir, segs[0].String())
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		clear(data[8192:]) // these pages never reached the disk
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		es, last, err := Read(o.Dir, Position{}, o)
		if synced {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatal("acknowledged entries vanished silently", last, err)
			}
			if _, err := Open(o, 0); !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			continue
		}
		if err != nil || len(es) < 5 {
			t.Fatal(len(es), err)
		}
		sameEntries(t, es, testEntries(1, 1, last.Index))
		if l, err = Open(o, 0); err != nil || l.Last() != last {
			t.Fatal(err)
		}
		mustAppend(t, l, testEntries(2, last.Index+1, last.Index+200))
		l = reopen(t, l, 0)
		sameEntries(t, all(t, l)[last.Index:], testEntries(2, last.Index+1, last.Index+200))
	}
}

// The new segment's name is durable, its content is not.
func TestPowerLossLeavesEmptySegment(t *testing.T) {
	for _, size := range []int{0, 16 << 10} {
		o, segs := closedLog(t, testOptions(t), 100)
		whole, last, err := Read(o.Dir, Position{}, o)
		if err != nil {
			t.Fatal(err)
		}
		void := segmentName{seq: segs[len(segs)-1].seq + 1, index: 101}
		if err := os.WriteFile(filepath.Join(o.Dir, void.String()), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		es, got, err := Read(o.Dir, Position{}, o)
		if err != nil || got != last {
			t.Fatal(got, err)
		}
		sameEntries(t, es, whole)
		if p, err := LastPosition(o.Dir, o); err != nil || p != last {
			t.Fatal(p, err)
		}
		l, err := Open(o, 0)
		if err != nil {
			t.Fatal(err)
		}
		mustAppend(t, l, testEntries(1, 101, 200))
		l = reopen(t, l, 0)
		sameEntries(t, all(t, l), testEntries(1, 1, 200))
	}
}

// etcd's own reader is the simple second implementation.
func TestAgreesWithWALReader(t *testing.T) {
	o := testOptions(t)
	l := mustCreate(t, o, Position{})
	mustAppend(t, l, testEntries(1, 1, 200))
	mustAppend(t, l, testEntries(2, 150, 260))
	w, err := wal.OpenForRead(nil, o.Dir, &walpb.Snapshot{})
	if err != nil {
		t.Fatal(err)
	}
	_, _, theirs, err := w.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var want []Entry
	for _, e := range theirs {
		want = append(want, Entry{Index: e.GetIndex(), Epoch: e.GetTerm(), Data: e.Data})
	}
	es, _, err := Read(o.Dir, Position{}, o)
	if err != nil {
		t.Fatal(err)
	}
	sameEntries(t, es, want)
}

// FuzzRead: reading a segment with any content neither panics nor changes entries. The mutation
// is given as pairs of a position and bytes to put there.
func FuzzRead(f *testing.F) {
	o := Options{Dir: filepath.Join(f.TempDir(), "log"), SegmentBytes: 8 << 10}
	o, segs := closedLog(f, o, 40)
	path := filepath.Join(o.Dir, segs[len(segs)-1].String())
	data, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint16(100), []byte{0}, uint16(0))
	f.Add(uint16(8), []byte{1, 2, 3, 4}, uint16(512))
	f.Add(uint16(0), []byte{255, 255, 255, 255, 255, 255, 255, 0x87}, uint16(7000))
	f.Fuzz(func(t *testing.T, at uint16, put []byte, cut uint16) {
		damaged := bytes.Clone(data)
		if int(at) < len(damaged) {
			copy(damaged[at:], put)
		}
		if cut > 0 && int(cut) < len(damaged) {
			damaged = damaged[:cut]
		}
		dir := t.TempDir()
		for _, n := range segs[:len(segs)-1] {
			if err := os.Link(filepath.Join(o.Dir, n.String()), filepath.Join(dir, n.String())); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, segs[len(segs)-1].String()), damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		es, _, err := Read(dir, Position{}, o)
		isBeginning(t, es, err, 0)
	})
}
