package log

import "fmt"

// entryOverheadBytes is the memory that an entry needs in addition to its data.
const entryOverheadBytes = 64

// tail is the end of the log that is kept in memory.
type tail struct {
	before  Position // of the entry right before the first one in entries
	entries []Entry  // contiguous, from before.Index+1 on
	bytes   int64
}

func entryBytes(e Entry) int64 { return int64(len(e.Data)) + entryOverheadBytes }

func (t *tail) first() uint64 { return t.before.Index + 1 }

func (t *tail) last() Position {
	if n := len(t.entries); n > 0 {
		return t.entries[n-1].Position()
	}
	return t.before
}

// at returns the position of the entry at an index. ok is false if it is not in memory.
func (t *tail) at(index uint64) (p Position, ok bool) {
	switch {
	case index == t.before.Index:
		return t.before, true
	case index < t.before.Index || index > t.last().Index:
		return Position{}, false
	}
	return t.entries[index-t.first()].Position(), true
}

// push appends entries that are known to continue the tail.
func (t *tail) push(entries []Entry) {
	t.entries = append(t.entries, entries...)
	for _, e := range entries {
		t.bytes += entryBytes(e)
	}
}

// cutAfter drops the entries above an index that is in memory.
func (t *tail) cutAfter(index uint64) {
	keep := index - t.before.Index
	for _, e := range t.entries[keep:] {
		t.bytes -= entryBytes(e)
	}
	clear(t.entries[keep:])
	t.entries = t.entries[:keep]
}

// dropBefore drops the entries below an index that is at most last+1.
func (t *tail) dropBefore(index uint64) {
	if index <= t.first() {
		return
	}
	n := index - t.first()
	t.before = t.entries[n-1].Position()
	for _, e := range t.entries[:n] {
		t.bytes -= entryBytes(e)
	}
	clear(t.entries[:n]) // the rest keeps the array alive
	t.entries = t.entries[n:]
}

// bound drops the oldest entries until at most maxBytes are left. It drops no entry above
// keepAfter.
func (t *tail) bound(maxBytes int64, keepAfter uint64) {
	drop, bytes := 0, t.bytes
	for drop < len(t.entries) && bytes > maxBytes && t.entries[drop].Index <= keepAfter {
		bytes -= entryBytes(t.entries[drop])
		drop++
	}
	t.dropBefore(t.first() + uint64(drop))
}

// read returns a copy of the entries from lo to maxIndex with at most maxBytes of data, but at
// least one entry if there is one.
func (t *tail) read(lo, maxIndex uint64, maxBytes int) ([]Entry, error) {
	if lo < t.first() {
		return nil, fmt.Errorf("%w: entry %d is not in memory, the first there is %d", ErrCompacted, lo, t.first())
	}
	maxIndex = min(maxIndex, t.last().Index)
	if lo > maxIndex {
		return nil, nil
	}
	from := t.entries[lo-t.first() : maxIndex-t.before.Index]
	n, bytes := 1, len(from[0].Data)
	for n < len(from) && bytes+len(from[n].Data) <= maxBytes {
		bytes += len(from[n].Data)
		n++
	}
	return append([]Entry(nil), from[:n]...), nil
}
