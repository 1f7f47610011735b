package store

import (
	"os"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/proc"
)

// A commit that finds the disk full ends the process, inside etcd's backend. It would end
// one member after the other, because all apply the same entries. So the disk space for the
// next commit is allocated before an entry is applied. Some spare space is kept for what
// must still be written when the disk is full: entries that are under way, and the alarm.
// When even the spare space is used up, Apply waits. It holds no lock meanwhile, so reads
// go on.

const (
	// spareRoomBytes is kept allocated beyond what the next commit needs.
	spareRoomBytes = 4 << 20
	// commitRoomBytes is what a commit may need in addition to the entries, for pages that are
	// rewritten because a part of them changed.
	commitRoomBytes = 256 << 10
	minRoomStep     = 1 << 20
	maxRoomStep     = 8 << 20
	// roomPoll is how often Apply checks whether there is space again.
	roomPoll = 50 * time.Millisecond
)

// room is the part of the file that has disk blocks. Only Apply uses it.
type room struct {
	allocatedBytes int64
	known          bool // allocatedBytes comes from an allocation, not from an estimate
	off            bool // the file system cannot allocate
	// replaced is set by Defrag, after which the database is another file.
	replaced atomic.Bool
}

// commitHook completes a commit, and records that it begins. The backend calls it while the
// batch transaction is locked.
type commitHook struct {
	backend.Hooks
	s *Store
}

func (h commitHook) OnPreCommitUnsafe(tx backend.UnsafeReadWriter) {
	h.addCounted(tx)
	if n := h.s.uncommittedBytes.Load(); n > 0 {
		h.s.committingBytes = n
		go h.s.settle()
	}
}

// addCounted adds to a commit the index of the last entry, and the rows of leases up to it.
func (h commitHook) addCounted(tx backend.UnsafeReadWriter) {
	h.s.counting.Lock()
	defer h.s.counting.Unlock()
	h.Hooks.OnPreCommitUnsafe(tx)
	if h.s.leases != nil { // nil during Open
		h.s.leases.tx.write(tx)
	}
	h.s.dirty.Store(false)
}

// settle waits for the end of a commit that is under way. Then the size of the file includes
// the committed entries, and they no longer count as uncommitted.
func (s *Store) settle() {
	tx := s.be.BatchTx()
	tx.LockOutsideApply()
	defer tx.Unlock()
	s.uncommittedBytes.Add(-s.committingBytes)
	s.committingBytes = 0
}

// makeRoom returns when a commit with one more entry of n bytes has space on the disk, or when
// the store is closed.
func (s *Store) makeRoom(n int) {
	if s.room.replaced.Swap(false) {
		s.room.estimate(Path(s.cfg.Dir))
	}
	for starved := false; !s.room.off; {
		size := s.be.Size()
		// The entry's content, and the pages around it that are rewritten.
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
			// Not every file system supports fallocate. There a commit may find the disk full.
			s.lg.Warn("cannot allocate disk space ahead for the database", zap.Error(err))
			s.room.off = true
			return
		case !starved:
			// The space for what is applied is allocated. Committing it may need less than was
			// reserved, so that the rest is enough for this entry. (Waiting may not help: while
			// the reserve is free, nobody else frees disk space.)
			starved = true
			s.commit()
			s.lg.Error("disk full: waiting for space to apply entries", zap.String("path", path), zap.Int64("need-bytes", need-s.room.allocatedBytes))
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

// allocate gives the file disk blocks up to a size, without changing its length.
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

// estimate sets allocatedBytes to what the file has if it has no holes. No more can be known
// about the allocation of an earlier process, and a full disk allows no more.
func (r *room) estimate(path string) {
	var st unix.Stat_t
	if unix.Stat(path, &st) == nil {
		r.allocatedBytes, r.known = st.Blocks*512, false
	}
}
