package log

import (
	"os"
	"path/filepath"
	"testing"
)

// When the log is open, the files that a repair put aside are removed, including those of an
// earlier program.
func TestRepairLeavesNoBrokenFiles(t *testing.T) {
	o, segs := closedLog(t, Options{Dir: filepath.Join(t.TempDir(), "log"), SegmentBytes: 8 << 10}, 40)
	last := filepath.Join(o.Dir, segs[len(segs)-1].String())
	data, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	at := frameOffsets(data)
	end := at[len(at)-1]
	torn := append(data[:end:end], 40, 0, 0, 0, 0, 0, 0, 0, 1, 2) // an append that was killed in its middle
	if err := os.WriteFile(last, torn, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(o.Dir, "00-00.wal"+brokenSuffix), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		l, err := Open(o, 0)
		if err != nil {
			t.Fatal(err)
		}
		if l.Last().Index != 40 {
			t.Errorf("ends at %s", l.Last())
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if left, _ := filepath.Glob(filepath.Join(o.Dir, "*"+brokenSuffix)); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
}
