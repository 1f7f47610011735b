package replica

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"os"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member/wire"
)

// ErrSnapshot means that a chunk does not belong where it arrived, or that the size or the
// checksum is wrong.
var ErrSnapshot = errors.New("snapshot chunks do not fit together")

// SnapshotFile collects the chunks of one snapshot in a separate file. The slot's copy stays in
// use until the snapshot is complete.
type SnapshotFile struct {
	path string
	file *os.File
	sum  hash.Hash
	size int64 // bytes received
	want int64 // bytes that the leader announced
}

// newSnapshotFile makes the file when the first chunk arrives. It allocates the room for the
// whole snapshot, if the file system supports that. Otherwise several followers that receive
// snapshots at the same time could fill the disk together, and none of them would finish.
func newSnapshotFile(path string, first *wire.SnapshotChunk) (*SnapshotFile, error) {
	if first.Size < 0 {
		return nil, fmt.Errorf("%w: the announced size is %d bytes", ErrSnapshot, first.Size)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	s := &SnapshotFile{path: path, file: f, sum: sha256.New(), want: first.Size}
	if err := claim(f, first.Size); proc.NoSpace(err) {
		s.Discard()
		return nil, err
	}
	return s, nil
}

// claim allocates blocks for a file without changing its length.
func claim(f *os.File, bytes int64) error {
	if bytes == 0 {
		return nil
	}
	for {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, bytes)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return &os.PathError{Op: "fallocate", Path: f.Name(), Err: err}
		}
	}
}

// Add appends a chunk. It reports whether the snapshot is complete; then the file is closed. It
// fails if the chunk is not the next one, or if there are more bytes than announced.
func (s *SnapshotFile) Add(c *wire.SnapshotChunk) (complete bool, err error) {
	end := s.size + int64(len(c.Data))
	switch {
	case c.Offset != s.size:
		return false, fmt.Errorf("%w: a chunk with offset %d arrived after %d bytes", ErrSnapshot, c.Offset, s.size)
	case end > s.want:
		return false, fmt.Errorf("%w: %d bytes arrived, but %d were announced", ErrSnapshot, end, s.want)
	}
	if _, err := s.file.Write(c.Data); err != nil {
		return false, err
	}
	s.sum.Write(c.Data)
	s.size = end
	if !c.Last {
		return false, nil
	}
	if s.size != c.Size || !bytes.Equal(s.sum.Sum(nil), c.Sha256) {
		return false, fmt.Errorf("%w: %d of %d bytes arrived, or the checksum differs", ErrSnapshot, s.size, c.Size)
	}
	return true, s.file.Close()
}

// Discard closes and removes the file.
func (s *SnapshotFile) Discard() {
	_ = s.file.Close()
	_ = os.Remove(s.path)
}

// Receive makes a snapshot file in the own slot when the first chunk arrives. The chunk itself
// is not written yet.
func (r *Replica) Receive(first *wire.SnapshotChunk) (*SnapshotFile, error) {
	return newSnapshotFile(incoming(r.Current().Slot), first)
}
