package log

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
)

// brokenSuffix marks a file that a repair has put aside.
const brokenSuffix = ".broken"

// segmentName identifies a segment file. Sequence numbers have no gaps. index is the index of
// the log's last entry when the segment began, plus one. It can be lower than that of the
// segment before, because a divergent tail may be replaced.
type segmentName struct {
	seq, index uint64
}

func (n segmentName) String() string { return fmt.Sprintf("%016x-%016x.wal", n.seq, n.index) }

func parseSegmentName(name string) (segmentName, bool) {
	base, ok := strings.CutSuffix(name, ".wal")
	if !ok || len(base) != 33 || base[16] != '-' {
		return segmentName{}, false
	}
	seq, err1 := strconv.ParseUint(base[:16], 16, 64)
	index, err2 := strconv.ParseUint(base[17:], 16, 64)
	return segmentName{seq: seq, index: index}, err1 == nil && err2 == nil
}

// listSegments returns the segments of a log in order. A directory without segments is not a
// log, and gives fs.ErrNotExist.
func listSegments(dir string) ([]segmentName, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list segments: %w", err)
	}
	var names []segmentName
	for _, f := range files {
		if n, ok := parseSegmentName(f.Name()); ok {
			names = append(names, n)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("list segments of %s: %w", dir, fs.ErrNotExist)
	}
	slices.SortFunc(names, func(a, b segmentName) int {
		if a.seq < b.seq {
			return -1
		}
		return 1
	})
	for i := 1; i < len(names); i++ {
		if names[i].seq != names[i-1].seq+1 {
			return nil, corruptf(names[i].String(), 0, "it does not follow %s", names[i-1])
		}
	}
	return names, nil
}
