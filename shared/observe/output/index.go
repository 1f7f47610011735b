package output

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"time"
)

// entry says that the output before a position had been written at a time.
type entry struct {
	end int64
	at  time.Time // in milliseconds
}

// entryBytes is the length of an encoded entry: 8 bytes of position, 6 bytes of Unix time
// in milliseconds and 2 bytes of checksum.
const entryBytes = 16

func (e entry) encode() []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(e.end))
	b = binary.LittleEndian.AppendUint64(b, uint64(max(0, e.at.UnixMilli()))&(1<<48-1))[:14]
	return binary.LittleEndian.AppendUint16(b, uint16(crc32.Checksum(b, castagnoli)))
}

// decodeEntry returns false if an entry is damaged.
func decodeEntry(b []byte) (entry, bool) {
	if len(b) < entryBytes || binary.LittleEndian.Uint16(b[14:]) != uint16(crc32.Checksum(b[:14], castagnoli)) {
		return entry{}, false
	}
	end := binary.LittleEndian.Uint64(b)
	at := binary.LittleEndian.Uint64(b[6:]) >> 16
	return entry{int64(end), time.UnixMilli(int64(at))}, end > 0 && end <= maxPosition
}

// decodeEntries appends the entries in b whose positions grow beyond end. It leaves out damaged ones.
func decodeEntries(to []entry, b []byte, end int64) []entry {
	for ; len(b) >= entryBytes; b = b[entryBytes:] {
		if e, ok := decodeEntry(b); ok && e.end > end {
			to = append(to, e)
			end = e.end
		}
	}
	return to
}

// times reads the index files in order, only as far as necessary.
type times struct {
	path  string
	f     *os.File // nil at first
	start int64    // of the file
	off   int64    // of the next entry in the file
	last  int64    // the position of the last entry read
	queue []entry  // read, but not used up
}

func (t *times) close() {
	if t.f != nil {
		_ = t.f.Close()
		t.f = nil
	}
}

// load reads entries until they cover the output from one position to another, or until there are no more.
func (t *times) load(from, to int64) error {
	for t.last < to {
		more, err := t.read(from)
		if err != nil {
			return err
		}
		if more {
			continue
		}
		// Look for a newer file first, and then once more into this one. When there is a newer
		// file, nothing is added to this one.
		start, ok, err := t.newer(from)
		if err != nil || !ok {
			return err
		}
		for more = true; more; {
			if more, err = t.read(from); err != nil {
				return err
			}
		}
		f, err := os.Open(indexPath(t.path, start))
		if errors.Is(err, fs.ErrNotExist) { // removed meanwhile; the next one is newer
			t.start = start
			continue
		}
		if err != nil {
			return fmt.Errorf("read output index: %w", err)
		}
		t.close()
		t.f, t.start, t.off = f, start, 0
	}
	return nil
}

// newer returns the first position of the index file after the current one.
func (t *times) newer(from int64) (start int64, ok bool, err error) {
	_, starts, err := list(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	for _, s := range starts {
		if t.start < s && (!ok || t.f == nil && s <= from) {
			start, ok = s, true
		}
	}
	return start, ok, err
}

// read reads more entries from the current file. It returns false if there are none.
func (t *times) read(from int64) (bool, error) {
	if t.f == nil {
		return false, nil
	}
	var b [256 * entryBytes]byte
	n, err := t.f.ReadAt(b[:], t.off)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("read output index: %w", err)
	}
	n -= n % entryBytes
	t.off += int64(n)
	for _, e := range decodeEntries(nil, b[:n], t.last) {
		t.last = e.end
		if e.end > from {
			t.queue = append(t.queue, e)
		}
	}
	return n > 0, nil
}

// at returns the time of the byte at a position. Positions must grow from call to call. It
// returns false if the byte is not in the index yet.
func (t *times) at(position int64) (time.Time, bool) {
	for len(t.queue) > 0 && t.queue[0].end <= position {
		t.queue = t.queue[1:]
	}
	if len(t.queue) == 0 {
		return time.Time{}, false
	}
	return t.queue[0].at, true
}

// lastEntry returns the last valid entry of an index file, or none.
func lastEntry(path string) (entry, error) {
	f, err := os.Open(path)
	if err != nil {
		return entry{}, fmt.Errorf("read output index: %w", err)
	}
	defer f.Close()
	var last entry
	var b [256 * entryBytes]byte
	for off := int64(0); ; {
		n, err := f.ReadAt(b[:], off)
		if err != nil && !errors.Is(err, io.EOF) {
			return entry{}, fmt.Errorf("read output index: %w", err)
		}
		if es := decodeEntries(nil, b[:n], last.end); len(es) > 0 {
			last = es[len(es)-1]
		}
		if n < len(b) {
			return last, nil
		}
		off += int64(n)
	}
}
