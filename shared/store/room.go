package store

import (
	"os"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/proc"
)

// A commit that finds no room on the disk is the end of the process, inside
// etcd's backend, and of one member after the other, since all apply the same. So the
// room for the next commit is allocated before an entry is applied, with some to
// spare for what must still be written when the disk is full: what is on its way,
// and the alarm. Where even that is used up, Apply waits; it holds no lock then, so
// reading goes on.

const (
	// spareRoomBytes is kept allocated beyond what the next commit needs.
	spareRoomBytes = 4 << 20
	// commitRoomBytes is what a commit may need beside the entries: pages that
	// are rewritten for a change of a part of them.
	commitRoomBytes = 256 << 10
	minRoomStep     = 1 << 20
	maxRoomStep     = 8 << 20
	// roomPoll is how often Apply looks whether there is room again.
	roomPoll = 50 * time.Millisecond
)

// room is the part of the file that has disk blocks. Apply uses it.
type room struct {
	allocatedBytes int64
	known          bool // allocatedBytes comes from an allocation, and is no estimate
	off            bool // the file system cannot allocate
	// committed is set by a commit: what was applied before it has its place.
	committed atomic.Bool
	// replaced is set by Defrag: it is another file now.
	replaced atomic.Bool
}

// commitHook tells of commits.
type commitHook struct {
	backend.Hooks
	committed *atomic.Bool
	dirty     *atomic.Bool
}

func (h commitHook) OnPreCommitUnsafe(tx backend.UnsafeReadWriter) {
	h.Hooks.OnPreCommitUnsafe(tx)
	h.committed.Store(true)
	h.dirty.Store(false)
}

// makeRoom returns once a commit with one more entry of n bytes has room on
// the disk, or when the store is closed.
func (s *Store) makeRoom(n int) {
	if s.room.committed.Swap(false) {
		s.uncommittedBytes.Store(0)
	}
	if s.room.replaced.Swap(false) {
		s.room.estimate(Path(s.cfg.Dir))
	}
	for starved := false; !s.room.off; {
		size := s.be.Size()
		// An entry's content, and the pages around it that are written anew.
		need := size + 2*(s.uncommittedBytes.Load()+int64(n)) + commitRoomBytes
		want := need + spareRoomBytes
		if s.room.allocatedBytes >= want {
			return
		}
		path := Path(s.cfg.Dir)
		err := s.room.allocate(path, want+min(max(size/8, minRoomStep), maxRoomStep))
		if proc.NoSpace(err) && s.room.allocatedBytes < need {
			err = s.room.allocate(path, need)
		}
		switch {
		case err == nil, s.room.allocatedBytes >= need:
			return
		case !proc.NoSpace(err):
			// Not every file system can. A commit may find the disk full then.
			s.lg.Warn("room for the database cannot be allocated ahead", zap.Error(err))
			s.room.off = true
			return
		case !starved:
			// What was applied has its room: written down it needs no more than it
			// takes, and there may be enough for this entry alone. (It may not get
			// more than that: as long as the reserve is free, nobody else makes room.)
			starved = true
			s.be.ForceCommit()
			s.room.committed.Store(false)
			s.uncommittedBytes.Store(0)
			s.lg.Error("disk full: applying needs room", zap.String("path", path), zap.Int64("need-bytes", need-s.room.allocatedBytes))
			continue
		}
		s.mu.Lock()
		broken := s.broken
		s.mu.Unlock()
		if broken != nil {
			return
		}
		time.Sleep(roomPoll)
	}
}

// allocate gives the file blocks up to a size, without changing its length.
func (r *room) allocate(path string, to int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	from := r.allocatedBytes
	if !r.known {
		from = 0 // there may be holes
	}
	for {
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, from, to-from)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return &os.PathError{Op: "fallocate", Path: path, Err: err}
	}
	r.allocatedBytes, r.known = to, true
	return nil
}

// estimate says how far the file has blocks if it has no holes: all that can be
// known of the allocation of an earlier process, and all there is on a full disk.
func (r *room) estimate(path string) {
	var st unix.Stat_t
	if unix.Stat(path, &st) == nil {
		r.allocatedBytes, r.known = st.Blocks*512, false
	}
}
