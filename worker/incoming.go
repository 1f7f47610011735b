package worker

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/entry"
	replog "github.com/dynast-io/dynast/shared/log"
	"github.com/dynast-io/dynast/shared/proc"
	"github.com/dynast-io/dynast/shared/wire"
)

var errSnapshot = errors.New("snapshot chunks do not fit together")

// snapshotFile collects the chunks of one snapshot in a file of its own; what
// the slot has stays in use until the new one is whole.
type snapshotFile struct {
	path string
	file *os.File
	sum  hash.Hash
	size int64 // bytes that are here
	want int64 // bytes that were announced
}

// newSnapshotFile begins with the first chunk. It takes the room for all, where
// the file system can say so at once: of several followers that are sent one, each
// may find room enough for itself alone, and then none would end.
func newSnapshotFile(path string, first *wire.SnapshotChunk) (*snapshotFile, error) {
	if first.Size < 0 {
		return nil, fmt.Errorf("%w: a size of %d bytes", errSnapshot, first.Size)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	s := &snapshotFile{path: path, file: f, sum: sha256.New(), want: first.Size}
	if err := claim(f, first.Size); proc.NoSpace(err) {
		s.discard()
		return nil, err
	}
	return s, nil
}

// claim gives a file its blocks, without changing its length.
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

// add takes a chunk. It reports whether the snapshot is whole, with its file
// closed, and fails when the chunk is not the next one or more than was announced.
func (s *snapshotFile) add(c *wire.SnapshotChunk) (whole bool, err error) {
	end := s.size + int64(len(c.Data))
	switch {
	case c.Offset != s.size:
		return false, fmt.Errorf("%w: offset %d after %d bytes", errSnapshot, c.Offset, s.size)
	case end > s.want:
		return false, fmt.Errorf("%w: %d bytes, %d were announced", errSnapshot, end, s.want)
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
		return false, fmt.Errorf("%w: %d of %d bytes, or another checksum", errSnapshot, s.size, c.Size)
	}
	return true, s.file.Close()
}

// discard gives its room back.
func (s *snapshotFile) discard() {
	_ = s.file.Close()
	_ = os.Remove(s.path)
}

// chunk takes a part of a snapshot, and installs it when it is whole. Without
// room for it the rest is let pass: the stream must go on, since it carries the
// signs of life.
func (in *inbound) chunk(c *wire.SnapshotChunk) error {
	m := in.u.m
	if c.Offset == 0 {
		in.close()
		in.skip = false
		if err := m.roomForSnapshot(c.Size); err != nil {
			in.starve(c.Size, err)
			return nil
		}
		s, err := newSnapshotFile(incoming(m.replica.current().slot), c)
		if proc.NoSpace(err) {
			in.starve(c.Size, err)
			return nil
		}
		if err != nil {
			return err
		}
		in.snapshot = s
	}
	if in.skip {
		return nil
	}
	if in.snapshot == nil {
		return fmt.Errorf("%w: offset %d of one that did not begin", errSnapshot, c.Offset)
	}
	whole := false
	err := m.deafly(func() (err error) { whole, err = in.snapshot.add(c); return err })
	switch {
	case proc.NoSpace(err):
		in.close()
		in.starve(c.Size, err)
		return nil
	case err != nil:
		return err
	case whole:
		in.snapshot = nil
		return m.install(wire.ToPosition(c.Position))
	}
	return nil
}

// roomForSnapshot is an error when a database of so many bytes has no place
// beside the old one, with some left for everybody else.
func (m *Member) roomForSnapshot(bytes int64) error {
	need := uint64(max(bytes, 0)) + uint64(m.config().Store.DiskReserve)/4
	free, err := proc.FreeBytes(m.cfg.DataDir)
	if err == nil && free < need {
		err = fmt.Errorf("%w: a snapshot needs %d bytes, %d are free", replog.ErrNoRoom, need, free)
	}
	return err
}

// starve lets a snapshot pass that has no room, and asks for one again when
// there is some.
func (in *inbound) starve(bytes int64, reason error) {
	u := in.u
	in.skip = true
	u.m.logger.Error("disk full: a snapshot waits for room", "error", reason)
	go func() {
		// Not at the same moment as another follower that waits for the same room.
		tick := time.NewTicker(retryRoom/2 + rand.N(retryRoom))
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if u.m.roomForSnapshot(bytes) == nil {
					u.resync("there is room for a snapshot")
					return
				}
			case <-in.ctx.Done():
				return
			}
		}
	}()
}

// install replaces the replica by the snapshot that was received, on the writer's
// goroutine, when there is room for it: this one goes on to hear the leader, which
// sends no entries before the new replica is acknowledged. A later snapshot, or a
// takeover, comes in its place if it has to wait.
func (m *Member) install(at entry.Position) error {
	turn := m.installs.Add(1)
	slot := m.replica.current().slot
	// Out of the way of the next one.
	path := receivedPath(slot, turn)
	if err := os.Rename(incoming(slot), path); err != nil {
		return err
	}
	mayWait := func() error {
		if m.installs.Load() != turn {
			return errSuperseded
		}
		return m.roomForLog()
	}
	go m.guarded(func() {
		if err := m.waitForRoom("a snapshot", mayWait); err != nil {
			_ = os.Remove(path)
			return
		}
		m.writer.do(func() { m.installNow(at, path, turn) })
	})
	return nil
}

// errSuperseded: a snapshot that waited is not wanted any more.
var errSuperseded = errors.New("superseded")

// installNow is install's part on the writer's goroutine.
func (m *Member) installNow(at entry.Position, path string, turn uint64) {
	if m.installs.Load() != turn {
		_ = os.Remove(path)
		return
	}
	switch err := m.replica.install(at, path); {
	case err == nil:
		m.post(core.Installed{Last: at})
	case !m.diskFull(err):
		m.storeFailed(err)
	}
}

// roomForLog is an error when a new log has no place. It is asked before the old
// one is thrown away.
func (m *Member) roomForLog() error {
	const need = 2*replog.DefaultSegmentBytes + 1<<20
	free, err := proc.FreeBytes(m.cfg.DataDir)
	if err == nil && free < need {
		return fmt.Errorf("%w: a new log needs %d bytes, %d are free", replog.ErrNoRoom, need, free)
	}
	return nil
}
