package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/datadir"
	"github.com/dynast-io/dynast/shared/entry"
	replog "github.com/dynast-io/dynast/shared/log"
	"github.com/dynast-io/dynast/shared/proc"
	"github.com/dynast-io/dynast/shared/store"
	"go.uber.org/zap"
)

// copyOf is an open replica: one slot, its log and its store.
type copyOf struct {
	slot  datadir.Slot
	lock  *proc.Lock
	log   *replog.Log
	store *store.Store
}

// replica holds the open copy and lets it be exchanged as a whole: when a
// follower takes over a dead leader's slot, or installs a snapshot. Who uses it
// across several calls holds it; exchanges wait for those.
type replica struct {
	dir       *datadir.Dir
	cfg       *config.Config
	zap       *zap.Logger
	clusterID uint64
	fatal     func(error) // of the store, which cannot return it

	mu  sync.RWMutex
	cur copyOf
	// hurry, if set, tells those who hold the copy for long that it is to be
	// exchanged.
	hurry atomic.Pointer[chan struct{}]
}

// held is a copy that is not exchanged until it is released.
type held struct {
	copyOf
	release func()
}

func (r *replica) hold() held {
	r.mu.RLock()
	return held{copyOf: r.cur, release: r.mu.RUnlock}
}

// holdLong is hold for something that takes long. The context ends when the copy
// is to be exchanged, or with ctx.
func (r *replica) holdLong(ctx context.Context) (held, context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	h := r.hold()
	hurry := r.hurryChannel()
	done := make(chan struct{})
	go func() {
		defer cancel()
		select {
		case <-hurry:
		case <-done:
		}
	}()
	release := h.release
	h.release = func() { close(done); release() }
	return h, ctx
}

func (r *replica) hurryChannel() chan struct{} {
	for {
		if c := r.hurry.Load(); c != nil {
			return *c
		}
		c := make(chan struct{})
		r.hurry.CompareAndSwap(nil, &c)
	}
}

// exclude waits until nobody holds the copy, and hurries those who do: also
// those who come to hold it for long until then.
func (r *replica) exclude() (release func()) {
	if c := r.hurry.Swap(&inAHurry); c != nil && c != &inAHurry {
		close(*c)
	}
	r.mu.Lock()
	r.hurry.Store(nil)
	return r.mu.Unlock
}

// inAHurry is a channel that is closed.
var inAHurry = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// current returns the copy for the goroutine that does the exchanges (the
// writer), and for everyone once the process leads: a leader exchanges nothing.
func (r *replica) current() copyOf {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.cur
}

func (r *replica) last() entry.Position {
	h := r.hold()
	defer h.release()
	if h.log == nil {
		return entry.Position{}
	}
	return h.log.Last()
}

func (r *replica) sync() (entry.Position, error) {
	h := r.hold()
	defer h.release()
	if h.log == nil {
		return entry.Position{}, nil
	}
	return h.log.Sync()
}

// minKeptBytes and maxKeptBytes bound the log that is kept on disk for others. Between
// them it is half of the database's size: who lacks more than that had better be sent a
// snapshot.
const (
	minKeptBytes = 64 << 20
	maxKeptBytes = 512 << 20
)

// compact lets go of the part of the log that the database holds durably, and that
// is before an index from which on others need it. Not more bytes than are to spare are
// kept for them, which is asked only when there is something to keep.
func (r *replica) compact(keepFrom uint64, spare func() int64) error {
	h := r.hold()
	defer h.release()
	if h.log == nil {
		return nil
	}
	first := h.log.First()
	if keepFrom < first {
		keepFrom = max(keepFrom, h.log.Youngest(min(spare(), max(minKeptBytes, h.store.Size()/2), maxKeptBytes)))
	}
	return h.log.Compact(min(keepFrom, first), h.store.Durable())
}

func (r *replica) logOptions(s datadir.Slot) replog.Options {
	return replog.Options{Dir: s.LogDir(), TailBytes: followerTailBytes, Logger: r.zap.Named("log")}
}

const (
	// leaderTailBytes bounds the entries that a leader keeps in memory. A follower
	// that needs older ones gets them from the disk, see kept.
	leaderTailBytes = 8 << 20
	// followerTailBytes is the same for the others, who need what they have not
	// applied yet, and what their siblings may lack when they take over.
	followerTailBytes = 4 << 20
)

// lockWait is how long a lock of a process that just died is waited for.
const lockWait = 300 * time.Millisecond

// unmapTimeout is how long a database may stay locked by a process that is dead,
// as the slot's lock has told: its memory, into which the file is mapped, is taken
// apart after its death (see proc.StartReaper), which takes some time on a busy host.
const unmapTimeout = 10 * time.Second

// purpose is what a slot is opened for.
type purpose uint8

const (
	// asCopy is for a follower: what is doubtful is dropped and fetched anew.
	asCopy purpose = iota
	// asTruth is for who inherits: nothing is thrown away, and nothing that is
	// missing is made anew.
	asTruth
	// asFirst is for the first leader of a new cluster.
	asFirst
)

// open makes a slot the open copy.
func (r *replica) open(slot datadir.Slot, self proc.Identity, address string, why purpose) error {
	defer r.exclude()()
	c, err := r.take(slot, why)
	if err != nil {
		return err
	}
	if err := r.openTaken(&c, self, address, why); err != nil {
		return err
	}
	r.cur = c
	return nil
}

// claim and openClaimed are the two halves of open for a process that serves
// its leader in between. What others see until the second is done is a copy with neither
// log nor store.
func (r *replica) claim(slot datadir.Slot, why purpose) error {
	defer r.exclude()()
	c, err := r.take(slot, why)
	r.cur = c
	return err
}

// openClaimed opens what the claimed slot holds; after an error the slot is free.
func (r *replica) openClaimed(self proc.Identity, address string, why purpose) error {
	c := r.current()
	err := r.openTaken(&c, self, address, why)
	defer r.exclude()()
	r.cur = c
	return err
}

// take makes a slot this process's own, with nothing open yet. After an error
// nothing is.
func (r *replica) take(slot datadir.Slot, why purpose) (copyOf, error) {
	// First: a key that cannot be read says nothing of the copy, which would be
	// thrown away below.
	if err := store.CheckAuthToken(r.cfg.Client.AuthToken); err != nil {
		return copyOf{}, err
	}
	if why == asTruth {
		if err := r.whole(slot); err != nil {
			return copyOf{}, fmt.Errorf("slot %d: %w", slot.Number, err)
		}
	}
	if err := slot.Make(); err != nil {
		return copyOf{}, err
	}
	lock, err := lockWithin(slot.Lock(), lockWait)
	if err != nil {
		return copyOf{}, fmt.Errorf("slot %d: %w", slot.Number, err)
	}
	c := copyOf{slot: slot, lock: lock}
	if err := r.mayOpen(slot, why); err != nil {
		c.close()
		return c, err
	}
	return c, nil
}

// openTaken opens what a slot that was taken holds. After an error it is free,
// and c is empty.
func (r *replica) openTaken(c *copyOf, self proc.Identity, address string, why purpose) error {
	slot := c.slot
	err := r.openData(c, why)
	if err == nil {
		err = writeMeta(slot, self, address)
	}
	if err != nil {
		c.close()
		return fmt.Errorf("slot %d: %w", slot.Number, err)
	}
	return nil
}

// whole refuses a slot of which a part is missing or its log cannot be read,
// before anything in it is touched: a log or a database that is made anew would pass
// for one in which nothing was ever written.
func (r *replica) whole(slot datadir.Slot) error {
	if reason, condemned := slot.Condemned(); condemned {
		return fmt.Errorf("the copy is condemned: %s (if you know better, remove the file %q in %s)", reason, "condemned", slot.Path())
	}
	o := r.logOptions(slot)
	_, err := replog.LastPosition(o.Dir, o)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("there is no log in %s", o.Dir)
	}
	if err != nil {
		return err
	}
	db := store.Path(slot.DBDir())
	if _, err := os.Stat(db); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if _, _, err := replog.Read(o.Dir, entry.Position{}, o); err != nil {
		return fmt.Errorf("%s is missing, and the log alone does not tell all: %w", db, err)
	}
	return nil
}

// mayOpen refuses a follower the slot that succession.json names, asked while
// the slot is locked. A start that hung for long can find that its slot has become the
// one that every write rests on, and that its owner has just died.
func (r *replica) mayOpen(slot datadir.Slot, why purpose) error {
	if why != asCopy {
		return nil
	}
	s, err := r.dir.ReadSuccession()
	if err == nil && s.Slot == slot.Number {
		return fmt.Errorf("slot %d: %w: succession.json names it as the leader's", slot.Number, proc.ErrLocked)
	}
	return nil
}

// lockWithin takes a lock whose owner may be on its way out: a killed process
// lets go of it at the end of its end, and one of its children between fork and
// exec a moment later.
func lockWithin(path string, patience time.Duration) (*proc.Lock, error) {
	deadline := time.Now().Add(patience)
	for {
		lock, err := proc.TryLock(path)
		if !errors.Is(err, proc.ErrLocked) || time.Now().After(deadline) {
			return lock, err
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func writeMeta(slot datadir.Slot, self proc.Identity, address string) error {
	boot, err := proc.BootID()
	if err != nil {
		return err
	}
	return slot.WriteMeta(datadir.SlotMeta{BootID: boot, Address: address, PID: self.PID, StartTime: self.StartTime})
}

// trusted reports whether the tail of a slot's log is what its owner wrote.
// Followers do not fsync: after a crash of the host their tails may miss pages
// in the middle.
func trusted(slot datadir.Slot) (bool, error) {
	meta, err := slot.ReadMeta()
	if errors.Is(err, os.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, nil // damaged: as good as written under another boot
	}
	boot, err := proc.BootID()
	return meta.BootID == boot, err
}

func (r *replica) openData(c *copyOf, why purpose) error {
	if err := clearReceived(c.slot); err != nil {
		return err
	}
	if reason, condemned := c.slot.Condemned(); condemned && why == asCopy {
		r.zap.Warn("the copy in this slot is condemned and is fetched anew", zap.Int("slot", c.slot.Number), zap.String("reason", reason))
		if err := errors.Join(wipe(c.slot), c.slot.Pardon()); err != nil {
			return err
		}
	}
	ok, err := trusted(c.slot)
	if err != nil {
		return err
	}
	if !ok && why == asCopy {
		if err := os.RemoveAll(c.slot.LogDir()); err != nil {
			return err
		}
	}
	err = r.openBoth(c)
	if err == nil || why != asCopy || proc.NoSpace(err) {
		return err
	}
	// A follower's copy that cannot be opened is worth nothing: start empty,
	// the leader has everything.
	r.zap.Warn("the copy in this slot cannot be used and is fetched anew", zap.Int("slot", c.slot.Number), zap.Error(err))
	if err := wipe(c.slot); err != nil {
		return err
	}
	return r.openBoth(c)
}

func wipe(slot datadir.Slot) error {
	return errors.Join(os.RemoveAll(slot.LogDir()), os.RemoveAll(store.Path(slot.DBDir())))
}

// openBoth opens the store, then the log that must go on where the store is.
func (r *replica) openBoth(c *copyOf) (err error) {
	c.store, err = store.Open(store.Config{
		Dir: c.slot.DBDir(), QuotaBytes: int64(r.cfg.Store.Quota), CommitInterval: r.cfg.Store.CommitInterval,
		Logger: r.zap.Named("store"), OpenTimeout: unmapTimeout,
		ClusterID: r.clusterID, MemberID: uint64(c.slot.Number), OnFatal: r.fatal,
		AuthToken: r.cfg.Client.AuthToken,
	})
	if err != nil {
		c.store = nil
		return err
	}
	applied := c.store.Applied()
	o := r.logOptions(c.slot)
	c.log, err = replog.Open(o, applied.Index)
	if errors.Is(err, os.ErrNotExist) {
		c.log, err = replog.Create(o, applied)
	}
	if err != nil {
		c.log = nil
		return errors.Join(err, c.closeData())
	}
	if epoch, ok := c.log.EpochAt(applied.Index); !ok || epoch != applied.Epoch {
		return errors.Join(fmt.Errorf("%w %s, up to which the database goes", errLogBehind, applied), c.closeData())
	}
	return nil
}

// errLogBehind: the log lost entries that it had.
var errLogBehind = errors.New("the log does not hold entry")

func (c *copyOf) closeData() error {
	var errs []error
	if c.log != nil {
		errs = append(errs, c.log.Close())
	}
	if c.store != nil {
		errs = append(errs, c.store.Close())
	}
	c.log, c.store = nil, nil
	return errors.Join(errs...)
}

func (c *copyOf) close() {
	_ = c.closeData()
	if c.lock != nil {
		_ = c.lock.Unlock()
	}
	*c = copyOf{}
}

// leave closes the open copy and frees its slot.
func (r *replica) leave() {
	defer r.exclude()()
	r.cur.close()
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// incoming is where a database is received; receivedPath is where one waits that is
// whole.
func incoming(slot datadir.Slot) string { return filepath.Join(slot.Path(), "incoming.db") }

func receivedPath(slot datadir.Slot, turn uint64) string {
	return filepath.Join(slot.Path(), fmt.Sprintf("received-%d.db", turn))
}

// clearReceived removes what an earlier process received and did not install.
func clearReceived(slot datadir.Slot) error {
	files, err := os.ReadDir(slot.Path())
	if err != nil {
		return err
	}
	errs := []error{os.RemoveAll(incoming(slot))}
	for _, f := range files {
		if strings.HasPrefix(f.Name(), "received-") {
			errs = append(errs, os.RemoveAll(filepath.Join(slot.Path(), f.Name())))
		}
	}
	return errors.Join(errs...)
}

// install replaces the copy by a database received whole, which is at
// position at. A crash between the steps leaves a log that does not fit the
// database, which the next open throws away.
func (r *replica) install(at entry.Position, path string) error {
	defer r.exclude()()
	c := &r.cur
	slot := c.slot
	if err := c.closeData(); err != nil {
		return fmt.Errorf("install snapshot: %w", err)
	}
	if err := syncFile(path); err != nil {
		return fmt.Errorf("install snapshot: %w", err)
	}
	if err := os.Rename(path, store.Path(slot.DBDir())); err != nil {
		return fmt.Errorf("install snapshot: %w", err)
	}
	if err := os.RemoveAll(slot.LogDir()); err != nil {
		return fmt.Errorf("install snapshot: %w", err)
	}
	if err := r.openBoth(c); err != nil {
		return fmt.Errorf("install snapshot: %w", err)
	}
	if got := c.store.Applied(); got != at {
		return fmt.Errorf("install snapshot: it is at %s, %s was announced", got, at)
	}
	return nil
}
