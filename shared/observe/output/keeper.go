package output

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrBusy means that another Keeper has the file.
	ErrBusy = errors.New("another process keeps this output file")
	// ErrOtherFile means that a descriptor is not that of the live file.
	ErrOtherFile = errors.New("the descriptor is not that of the output file")
	// ErrUnbounded means that the file system cannot free the first part of a file.
	ErrUnbounded = errors.New("the file system cannot punch holes, so the output file grows without bound")
)

const (
	// indexInterval is the time between two index entries, at least.
	indexInterval = 100 * time.Millisecond
	// minIndexBytes and indexShare bound an index file: see Keeper.interval.
	minIndexBytes = 64 << 10
	indexShare    = 16
	// retryAfter is the time after which a failed rotation is tried again.
	retryAfter = 10 * time.Second
)

// Limits bound the output.
type Limits struct {
	// MaxBytes is the size at which the live file is rotated. It should be much larger than
	// a block of the file system. 0 means never.
	MaxBytes int64
	// MaxBackups is the number of rotated files. 0 means that rotated output is removed.
	MaxBackups int
}

// Tended is the result of Tend.
type Tended struct {
	// Bytes is the length of the output in the live file.
	Bytes int64
	// Rotated is the number of bytes that were moved out of the live file.
	Rotated int64
	// Moved means that the path does not lead to the file any more, because somebody has
	// deleted, renamed or replaced it.
	Moved bool
	// Truncated means that somebody has truncated the file.
	Truncated bool
}

// Keeper bounds and indexes the output file of a program. Only one goroutine may use it.
type Keeper struct {
	path   string
	limits Limits
	f      *os.File // the live file
	lock   *os.File // the state file
	st     state    // as on the disk

	size      int64         // of the live file when it was looked at last, without what was cut off since
	collapsed bool          // the range before live.start was removed, but this is not in st yet
	changed   unix.Timespec // the live file's time of change
	moved     bool

	index        *os.File // the current index file
	indexStart   int64    // its first position
	indexBytes   int64    // its size
	indexed      int64    // the position up to which the output is in the index
	indexedAt    time.Time
	indexRetry   time.Time // no index entry before
	sawUnwatched bool      // output that was written when there was no Keeper is in the index

	retry     time.Time // no rotation before
	unbounded bool      // the file system cannot punch holes
	punchOnly bool      // it can, but it cannot collapse ranges
	supported bool      // the first of these was tested
	// step is called before each step of a rotation. An error ends the call of Tend like the
	// death of the process at this point.
	step func(name string) error
}

// NewKeeper makes the Keeper of a file that Open has created. It finishes what an earlier
// Keeper has begun. It returns ErrBusy as long as there is another one, and an error that
// matches fs.ErrNotExist if there is no file.
func NewKeeper(path string, limits Limits) (*Keeper, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open output file: %w", err)
	}
	k, err := newKeeper(path, f, limits, false)
	if err != nil {
		_ = f.Close()
	}
	return k, err
}

// Adopt makes the Keeper of a file that may be deleted or renamed. The file must be opened
// for reading and writing, for example as /proc/PID/fd/1. Adopt returns ErrOtherFile if it
// is not the live file of an earlier Keeper. If there is no error, the Keeper closes f.
func Adopt(path string, f *os.File, limits Limits) (*Keeper, error) {
	return newKeeper(path, f, limits, true)
}

func newKeeper(path string, f *os.File, limits Limits, adopt bool) (_ *Keeper, err error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open output file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("open output file: %s is not a regular file", path)
	}
	l, err := os.OpenFile(path+stateSuffix, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open output state: %w", err)
	}
	k := &Keeper{path: path, limits: limits, f: f, lock: l, size: info.Size(), step: func(string) error { return nil }}
	defer func() {
		if err != nil {
			k.release()
		}
	}()
	if err := lock(l); err != nil {
		return nil, err
	}
	return k, k.recover(adopt)
}

// recover reads the files and finishes what an earlier Keeper has begun.
func (k *Keeper) recover(adopt bool) error {
	if err := os.Remove(k.path + tempSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove unfinished output copy: %w", err)
	}
	var err error
	if k.st, err = readState(k.lock); err != nil {
		return err
	}
	id, err := identify(k.f)
	if err != nil {
		return err
	}
	known := k.st.seq > 0 && k.st.live.id == id
	if adopt && !known {
		return ErrOtherFile
	}
	segments, indexes, err := list(k.path)
	if err != nil {
		return err
	}
	var lastIndexed int64
	for _, start := range indexes {
		e, err := lastEntry(indexPath(k.path, start))
		if err != nil {
			return err
		}
		lastIndexed = max(lastIndexed, start, e.end)
	}
	intact := false
	if known {
		if intact, err = k.intact(lastIndexed, segments); err != nil {
			return err
		}
	}
	if intact {
		err = k.claim(segments)
	} else {
		err = k.begin(id, max(lastIndexed, k.st.live.start, lastEnd(segments)))
	}
	if err != nil {
		return err
	}
	// An error here is not fatal: Tend tries it again and reports it.
	_ = k.finish()
	k.indexed = max(lastIndexed, k.st.live.start)
	if len(indexes) > 0 && intact {
		return k.openIndex(indexes[len(indexes)-1])
	}
	return k.openIndex(k.indexed)
}

func lastEnd(segments []segment) int64 {
	if len(segments) == 0 {
		return 0
	}
	return segments[len(segments)-1].end
}

// intact reports whether the live file still is what the state says. It is not if somebody
// has truncated it.
func (k *Keeper) intact(lastIndexed int64, segments []segment) (bool, error) {
	r := k.st.live
	hole, err := firstData(k.f)
	if err != nil {
		return false, err
	}
	switch {
	case r.phase == idle && hole < r.start-r.base:
		return false, nil
	case r.phase == idle && slices.ContainsFunc(segments, func(s segment) bool {
		return s.start == r.start && s.end > r.base+k.size // a copy cannot be longer
	}):
		return false, nil
	case r.phase == collapsing && hole == 0: // the range was removed
		return r.start+k.size >= lastIndexed, nil
	}
	return r.base+k.size >= max(r.start, lastIndexed), nil
}

// claim stores that this process has the live file now. If a rotated file begins where the
// live file does, then it was copied, but not cut off.
func (k *Keeper) claim(segments []segment) error {
	next := k.st
	if next.live.phase == copied { // there may be more output now
		next.live.phase = cutting
	}
	for _, s := range segments {
		if s.start == next.live.start && s.end > s.start && next.live.phase == idle {
			next.live.start, next.live.phase = s.end, cutting
			break
		}
	}
	return k.store(next)
}

// begin stores that the live file is a new one, or an old one that somebody has truncated.
func (k *Keeper) begin(id identity, end int64) error {
	hole, err := firstData(k.f) // nothing is known about output before a hole
	if err != nil {
		return err
	}
	base := nextBase(end)
	next := state{seq: k.st.seq, previous: k.st.live, live: region{id: id, base: base, start: base + hole}}
	return k.store(next)
}

// store puts a new state on the disk.
func (k *Keeper) store(next state) error {
	next.seq++
	next.live.pid, next.live.fd = uint64(os.Getpid()), uint64(k.f.Fd())
	if err := writeState(k.lock, next); err != nil {
		return err
	}
	k.st, k.collapsed = next, false
	return nil
}

// Tend looks at the file: it adds to the index, rotates the file if it is too large, and
// reports what others did to it. Its owner calls it about every 100 ms with the current
// time. It costs one fstat if nothing has changed. After an error, output is neither lost
// nor doubled. A rotation that failed is tried again 10 s later, unless the error is
// ErrUnbounded, which is returned once.
func (k *Keeper) Tend(now time.Time) (Tended, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(k.f.Fd()), &st); err != nil {
		return Tended{}, fmt.Errorf("look at output file: %w", err)
	}
	var t Tended
	var errs []error
	if st.Ctim != k.changed { // renaming and deleting a file changes it, too
		k.changed = st.Ctim
		errs = append(errs, k.lookForMove(&st))
	}
	t.Moved = k.moved
	t.Truncated = st.Size < k.size
	k.size = st.Size
	if t.Truncated {
		if err := k.begin(k.st.live.id, max(k.indexed, k.st.live.start)); err != nil {
			return t, errors.Join(append(errs, err)...)
		}
	}
	errs = append(errs, k.record(now, &st))
	if !now.Before(k.retry) {
		before := k.st.live.start
		err := k.rotate()
		if err != nil && !errors.Is(err, ErrUnbounded) {
			k.retry = now.Add(retryAfter)
		}
		t.Rotated = k.st.live.start - before
		errs = append(errs, err)
	}
	t.Bytes = k.end() - k.st.live.start
	return t, errors.Join(errs...)
}

// end is the position behind the output.
func (k *Keeper) end() int64 {
	if k.collapsed {
		return k.st.live.start + k.size
	}
	return k.st.live.base + k.size
}

func (k *Keeper) lookForMove(own *unix.Stat_t) error {
	var st unix.Stat_t
	err := unix.Stat(k.path, &st)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for output file: %w", err)
	}
	k.moved = err != nil || st.Ino != own.Ino || st.Dev != own.Dev
	return nil
}

// interval returns the time between two index entries. It doubles with each share of the
// file, so that a program that writes a few bytes very often does not make an index that
// is larger than its output.
func (k *Keeper) interval() time.Duration {
	return indexInterval << min(20, k.indexBytes/max(minIndexBytes, k.limits.MaxBytes/indexShare))
}

// record adds new output to the index.
func (k *Keeper) record(now time.Time, st *unix.Stat_t) error {
	end := k.end()
	if end <= k.indexed {
		k.sawUnwatched = true
		return nil
	}
	if now.Before(k.indexRetry) {
		return nil
	}
	if since := now.Sub(k.indexedAt); since >= 0 && since < k.interval() {
		return nil
	}
	at := now
	if written := time.Unix(st.Mtim.Unix()); !k.sawUnwatched && written.Before(now) {
		at = written
	}
	// A failed write may have written a part, which the next one replaces.
	if _, err := k.index.WriteAt(entry{end, at}.encode(), k.indexBytes); err != nil {
		k.indexRetry = now.Add(retryAfter)
		return fmt.Errorf("write output index: %w", err)
	}
	k.indexBytes += entryBytes
	k.indexed, k.indexedAt, k.sawUnwatched = end, now, true
	return nil
}

// openIndex opens the index file that begins at a position, and creates it if necessary.
func (k *Keeper) openIndex(start int64) error {
	f, err := os.OpenFile(indexPath(k.path, start), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open output index: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return fmt.Errorf("open output index: %w", err)
	}
	if k.index != nil {
		_ = k.index.Close()
	}
	k.index, k.indexStart, k.indexBytes = f, start, info.Size()/entryBytes*entryBytes
	return nil
}

// Close records the rest of the output in the index and closes the files. If the live file
// was deleted or renamed, it copies the rest of the output to a rotated file.
func (k *Keeper) Close(now time.Time) error {
	k.indexedAt, k.indexRetry = time.Time{}, time.Time{}
	limits := k.limits
	k.limits.MaxBytes = 0 // a rotation can wait for the next Keeper
	t, err := k.Tend(now)
	k.limits = limits
	if err == nil && t.Moved && t.Bytes > 0 && limits.MaxBackups > 0 {
		err = errors.Join(k.copyOut(t.Bytes, copied), k.prune())
	}
	k.release()
	return err
}

// release closes the files, as the death of the process does.
func (k *Keeper) release() {
	if k.index != nil {
		_ = k.index.Close()
	}
	_ = k.f.Close()
	_ = k.lock.Close()
}
