package log

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// sameAsRead checks that a tracker reads the same as Read, after each position.
func sameAsRead(t *testing.T, tr *Tracker, l *Log, entries []Entry) {
	t.Helper()
	for after := uint64(0); after <= uint64(len(entries)); after += 3 {
		p := Position{}
		if after > 0 {
			p = entries[after-1].Position()
		}
		for _, p := range []Position{p, {Epoch: p.Epoch + 9, Index: p.Index}} {
			want, wantLast, wantErr := Read(l.o.Dir, p, l.o)
			got, last, err := tr.Read(p, l.o)
			for _, sentinel := range []error{ErrDiverged, ErrCompacted, ErrCorrupt} {
				if errors.Is(err, sentinel) != errors.Is(wantErr, sentinel) {
					t.Fatalf("after %s, with the mark at %s: %v, want %v", p, tr.At(), err, wantErr)
				}
			}
			if (err == nil) != (wantErr == nil) || last != wantLast {
				t.Fatalf("after %s, with the mark at %s: %s, %v, want %s, %v", p, tr.At(), last, err, wantLast, wantErr)
			}
			sameEntries(t, got, want)
		}
	}
}

func TestTrackerReadsWhatReadReads(t *testing.T) {
	l := mustCreate(t, testOptions(t), Position{})
	want := append(testEntries(1, 1, 120), testEntries(3, 121, 260)...)
	tr := NewTracker(l.o.Dir)
	for from := 0; from < len(want); from += 26 {
		mustAppend(t, l, want[from:from+26])
		index := uint64(from + 20) // what follows may yet be undone
		if err := tr.Advance(index); err != nil {
			t.Fatal(err)
		}
		if at := tr.At(); at != want[index-1].Position() {
			t.Fatalf("came to %s, want %d", at, index)
		}
		sameAsRead(t, tr, l, want[:from+26])
	}
	mustCompact(t, l, 200, want[220].Position())
	sameAsRead(t, tr, l, want)
	if err := errors.Join(tr.Advance(230), tr.Advance(258)); err != nil || tr.At().Index != 258 {
		t.Fatal(tr.At(), err)
	}
}

func TestTrackerIsAheadOfAReplacedTail(t *testing.T) {
	l := mustCreate(t, testOptions(t), Position{})
	mustAppend(t, l, testEntries(1, 1, 30))
	mustAppend(t, l, testEntries(2, 21, 60))
	want := append(testEntries(1, 1, 20), testEntries(2, 21, 60)...)
	for index := uint64(1); index <= 60; index++ {
		tr := NewTracker(l.o.Dir)
		if err := tr.Advance(index); err != nil {
			t.Fatal(index, err)
		}
		sameAsRead(t, tr, l, want)
	}
}

// The log before the mark is not read again. It is damaged here, so that reading it would fail.
func TestTrackerReadsOnlyTheRest(t *testing.T) {
	o := testOptions(t)
	o.SegmentBytes = 1 << 20
	o, segs := closedLog(t, o, 200)
	tr := NewTracker(o.Dir)
	if err := tr.Advance(190); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(o.Dir, segs[0].String())
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[frameOffsets(data)[50]+20] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	own := testEntry(1, 195).Position()
	if _, _, err := Read(o.Dir, own, o); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("Read: %v: the damage is not where it has to be", err)
	}
	got, last, err := tr.Read(own, o)
	if err != nil || last.Index != 200 {
		t.Fatal(last, err)
	}
	sameEntries(t, got, testEntries(1, 196, 200))
}

// If the log is not the one that was read before, it is read from its beginning.
func TestTrackerNoticesAnotherLog(t *testing.T) {
	l := mustCreate(t, testOptions(t), Position{})
	mustAppend(t, l, testEntries(1, 1, 20))
	tr := NewTracker(l.o.Dir)
	if err := tr.Advance(20); err != nil {
		t.Fatal(err)
	}
	at := *tr.at
	for name, change := range map[string]func(m *mark){
		"behind the end":   func(m *mark) { m.offset = 1 << 30 },
		"nothing is there": func(m *mark) { m.offset += 8192 },
		"another frame":    func(m *mark) { m.offset = 0 },
		"another checksum": func(m *mark) { m.crc++ },
		"another entry":    func(m *mark) { m.entry.Epoch++ },
		"another segment":  func(m *mark) { m.name.seq++ },
	} {
		changed := at
		change(&changed)
		tr.at = &changed
		if _, _, err := tr.readFrom(&changed, testEntry(1, 20).Position()); err == nil {
			t.Errorf("%s: not noticed", name)
		}
		sameAsRead(t, tr, l, testEntries(1, 1, 20))
	}
}
