package output

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// phase is the part of a rotation that is under way.
type phase uint64

const (
	idle phase = iota
	// cutting means that the file's bytes before Start are to be removed.
	cutting
	// collapsing means that these bytes are a hole, which may have been removed already.
	collapsing
	// copied means cutting, and that all output of the file is in rotated files.
	copied
	phases
)

// region tells which part of the output a live file holds.
type region struct {
	id identity
	// base is the position of the file's byte 0, and start that of the first byte that
	// counts: base <= start.
	base, start int64
	phase       phase
	// pid and fd are the Keeper's process and its descriptor of the file.
	pid, fd uint64
}

// state is the contents of the state file.
type state struct {
	seq uint64 // 0 if there is no state
	// live is the current live file, and previous is the one before it, so that a Reader
	// that has it open can read it to its end.
	live, previous region
}

const (
	stateMagic  = "dynout1\n"
	regionBytes = 7 * 8
	slotBytes   = 8 + 8 + 2*regionBytes + 4
	// slotDistance puts each slot into a sector of its own.
	slotDistance = 512
	stateBytes   = slotDistance + slotBytes
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (s state) encode() []byte {
	b := append(make([]byte, 0, slotBytes), stateMagic...)
	b = binary.LittleEndian.AppendUint64(b, s.seq)
	for _, r := range []region{s.live, s.previous} {
		for _, v := range []uint64{r.id.inode, uint64(r.id.born), uint64(r.base), uint64(r.start), uint64(r.phase), r.pid, r.fd} {
			b = binary.LittleEndian.AppendUint64(b, v)
		}
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeSlot returns false if a slot is damaged or empty.
func decodeSlot(b []byte) (state, bool) {
	if len(b) < slotBytes || string(b[:8]) != stateMagic {
		return state{}, false
	}
	body := b[:slotBytes-4]
	if binary.LittleEndian.Uint32(b[slotBytes-4:]) != crc32.Checksum(body, castagnoli) {
		return state{}, false
	}
	next := func() uint64 {
		v := binary.LittleEndian.Uint64(body)
		body = body[8:]
		return v
	}
	body = body[8:]
	s := state{seq: next()}
	for _, r := range []*region{&s.live, &s.previous} {
		r.id = identity{inode: next(), born: int64(next())}
		r.base, r.start, r.phase = int64(next()), int64(next()), phase(next())
		r.pid, r.fd = next(), next()
		if r.base < 0 || r.start < r.base || r.start > maxPosition || r.phase >= phases {
			return state{}, false
		}
	}
	return s, s.seq > 0
}

// decodeState returns the newest valid state in the contents of a state file.
func decodeState(b []byte) state {
	newest, _ := decodeSlot(b)
	if len(b) > slotDistance {
		if s, ok := decodeSlot(b[slotDistance:]); ok && s.seq > newest.seq {
			newest = s
		}
	}
	return newest
}

func readState(f *os.File) (state, error) {
	var b [stateBytes]byte
	n, err := f.ReadAt(b[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return state{}, fmt.Errorf("read output state: %w", err)
	}
	return decodeState(b[:n]), nil
}

// writeState returns when the state is on the disk.
func writeState(f *os.File, s state) error {
	if _, err := f.WriteAt(s.encode(), int64(s.seq%2)*slotDistance); err != nil {
		return fmt.Errorf("write output state: %w", err)
	}
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		return fmt.Errorf("write output state: %w", err)
	}
	return nil
}

// lock takes the lock of the Keeper. It belongs to the open file, so a reader in the same
// process sees it too.
func lock(f *os.File) error {
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return ErrBusy
	}
	if err != nil {
		return fmt.Errorf("lock output state: %w", err)
	}
	return nil
}

// locked reports whether there is a Keeper.
func locked(f *os.File) (bool, error) {
	l := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l); err != nil {
		return false, fmt.Errorf("look for the lock of the output state: %w", err)
	}
	return l.Type != unix.F_UNLCK, nil
}
