package replica

import (
	"errors"
	"fmt"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	replog "github.com/dynast-io/dynast/shared/replica/log"
	"github.com/dynast-io/dynast/shared/replica/store"
	"github.com/dynast-io/dynast/shared/rules/entry"
)

func (r *holder) logOptions(s datadir.Slot) replog.Options {
	return replog.Options{Dir: s.LogDir(), TailBytes: r.memory.bound(followerTailBytes, 16), Logger: r.zap.Named("log")}
}

const (
	// leaderTailBytes bounds the entries that a leader keeps in memory. A follower that needs
	// older ones gets them from the log on disk, see retention. A leader's heap may grow to
	// three times of what is in use, so each MiB here costs three.
	leaderTailBytes = 4 << 20
	// followerTailBytes is the same for a follower. It needs the entries that it has not
	// applied yet. Those stay in memory in any case. And it needs the entries that other
	// followers may lack when it takes over: they get entries in smaller parts than this.
	followerTailBytes = 1 << 20
)

// unmapTimeout is how long to wait for the lock of a database whose owner is dead, which the
// free slot lock shows. The kernel unmaps the dead process's memory, with the database file in
// it, after its death (see proc.StartReaper). On a busy host that takes some time.
const unmapTimeout = 10 * time.Second

// purpose tells why a slot is opened.
type purpose uint8

const (
	// asCopy is for a follower: a doubtful copy is dropped and fetched anew.
	asCopy purpose = iota
	// asOriginal is for a takeover: open throws no data away, and it does not replace a missing
	// part by an empty one.
	asOriginal
	// asNew is for the first leader of a new cluster.
	asNew
)

// open makes a slot the open copy.
func (r *holder) open(slot datadir.Slot, why purpose) error {
	defer r.exclude()()
	c, err := r.take(slot, why)
	if err != nil {
		return err
	}
	if err := r.openTaken(&c, why); err != nil {
		return err
	}
	r.cur = c
	return nil
}

// Claim is the first half of open, for a follower that serves requests of its leader before it
// opens the data with OpenClaimed. Until then the copy has neither a log nor a store.
func (r *holder) Claim(slot datadir.Slot) error {
	defer r.exclude()()
	c, err := r.take(slot, asCopy)
	r.cur = c
	return err
}

// OpenClaimed opens the log and the store of the claimed slot. After an error the slot is free.
func (r *holder) OpenClaimed() error {
	c := r.Current()
	err := r.openTaken(&c, asCopy)
	defer r.exclude()()
	r.cur = c
	return err
}

// take locks a slot for this process and opens nothing yet. After an error the slot is not
// locked.
func (r *holder) take(slot datadir.Slot, why purpose) (Copy, error) {
	// This check comes first. If the key for auth tokens cannot be read, the copy is not to
	// blame, but opening it would fail and the copy would be thrown away.
	if err := store.CheckAuthToken(r.Settings.Start.Client.AuthToken); err != nil {
		return Copy{}, err
	}
	if why == asOriginal {
		if err := r.checkComplete(slot); err != nil {
			return Copy{}, fmt.Errorf("slot %d: %w", slot.Number, err)
		}
	}
	if err := slot.Make(); err != nil {
		return Copy{}, err
	}
	lock, err := LockWithin(slot.Lock(), proc.ReleaseTime)
	if err != nil {
		return Copy{}, fmt.Errorf("slot %d: %w", slot.Number, err)
	}
	c := Copy{Slot: slot, lock: lock}
	if err := r.mayOpen(slot, why); err != nil {
		c.close()
		return c, err
	}
	return c, nil
}

// openTaken opens the log and the store of a slot that was taken. After an error the slot is
// free and c is empty.
func (r *holder) openTaken(c *Copy, why purpose) error {
	slot := c.Slot
	err := r.openData(c, why)
	if err == nil {
		err = r.writeMeta(slot)
	}
	if err != nil {
		c.close()
		return fmt.Errorf("slot %d: %w", slot.Number, err)
	}
	return nil
}

// checkComplete refuses a slot with a missing part or an unreadable log before anything in it is
// changed. Otherwise open would make an empty log or database, which would look as if nothing
// had ever been written.
func (r *holder) checkComplete(slot datadir.Slot) error {
	if reason, condemned := slot.Condemned(); condemned {
		return fmt.Errorf("the copy is condemned: %s (to use it anyway, remove the file %q in %s)", reason, "condemned", slot.Path())
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
		return fmt.Errorf("%s is missing, and the log alone is not enough to rebuild it: %w", db, err)
	}
	return nil
}

// mayOpen refuses to let a follower open the slot that succession.json names. It is called
// while the slot is locked. A follower whose start hung for long can find that its slot has
// become the leader's in the meantime, and that this leader has just died.
func (r *holder) mayOpen(slot datadir.Slot, why purpose) error {
	if why != asCopy {
		return nil
	}
	s, err := r.Dir.ReadSuccession()
	if err == nil && s.Slot == slot.Number {
		return fmt.Errorf("slot %d: %w: succession.json names it as the leader's", slot.Number, proc.ErrLocked)
	}
	return nil
}

// LockWithin takes a lock whose owner may be exiting. A killed process releases its locks at
// the very end of its exit. A child of it that is between fork and exec releases them a moment
// later.
func LockWithin(path string, patience time.Duration) (*proc.Lock, error) {
	deadline := time.Now().Add(patience)
	for {
		lock, err := proc.TryLock(path)
		if !errors.Is(err, proc.ErrLocked) || time.Now().After(deadline) {
			return lock, err
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (r *holder) writeMeta(slot datadir.Slot) error {
	self := r.Self
	return slot.WriteMeta(datadir.SlotMeta{BootID: self.BootID, Address: self.Address.String(), PID: self.Process.PID, StartTime: self.Process.StartTime})
}

// trusted reports whether the tail of a slot's log is complete. Followers do not fsync, so after
// a crash of the host pages in the middle of the tail may be missing.
func (r *holder) trusted(slot datadir.Slot) bool {
	meta, err := slot.ReadMeta()
	if errors.Is(err, os.ErrNotExist) {
		return true
	}
	return err == nil && meta.BootID == r.Self.BootID // damaged metadata counts as another boot
}

func (r *holder) openData(c *Copy, why purpose) error {
	if err := clearReceived(c.Slot); err != nil {
		return err
	}
	if reason, condemned := c.Slot.Condemned(); condemned && why == asCopy {
		r.zap.Warn("the copy in this slot is condemned, fetching a new one", zap.Int("slot", c.Slot.Number), zap.String("reason", reason))
		if err := errors.Join(wipe(c.Slot), c.Slot.Pardon()); err != nil {
			return err
		}
	}
	if !r.trusted(c.Slot) && why == asCopy {
		if err := os.RemoveAll(c.Slot.LogDir()); err != nil {
			return err
		}
	}
	err := r.openBoth(c)
	if err == nil || why != asCopy || proc.NoSpace(err) {
		return err
	}
	// A follower whose copy cannot be opened starts empty, because the leader has all the data.
	r.zap.Warn("cannot use the copy in this slot, fetching a new one", zap.Int("slot", c.Slot.Number), zap.Error(err))
	if err := wipe(c.Slot); err != nil {
		return err
	}
	return r.openBoth(c)
}

func wipe(slot datadir.Slot) error {
	return errors.Join(os.RemoveAll(slot.LogDir()), os.RemoveAll(store.Path(slot.DBDir())))
}

// openBoth opens the store and then the log, which must contain the last applied entry.
func (r *holder) openBoth(c *Copy) (err error) {
	c.Store, err = store.Open(store.Config{
		Dir: c.Slot.DBDir(), QuotaBytes: int64(r.Settings.Start.Store.Quota), CommitInterval: r.Settings.Start.Store.CommitInterval,
		Logger: r.zap.Named("store"), OpenTimeout: unmapTimeout,
		ClusterID: r.Self.ClusterID, MemberID: uint64(c.Slot.Number), OnFatal: r.fatal,
		AuthToken: r.Settings.Start.Client.AuthToken, Deadlines: r.deadlines,
	})
	if err != nil {
		c.Store = nil
		return err
	}
	applied := c.Store.Applied()
	o := r.logOptions(c.Slot)
	c.Log, err = replog.Open(o, applied.Index)
	if errors.Is(err, os.ErrNotExist) {
		c.Log, err = replog.Create(o, applied)
	}
	if err != nil {
		c.Log = nil
		return errors.Join(err, c.closeData())
	}
	if epoch, ok := c.Log.EpochAt(applied.Index); !ok || epoch != applied.Epoch {
		return errors.Join(fmt.Errorf("%w %s, which the database has applied", errLogBehind, applied), c.closeData())
	}
	return nil
}

// errLogBehind means that the log lost entries that it had before.
var errLogBehind = errors.New("the log does not hold entry")

func (c *Copy) closeData() error {
	var errs []error
	if c.Log != nil {
		errs = append(errs, c.Log.Close())
	}
	if c.Store != nil {
		errs = append(errs, c.Store.Close())
	}
	c.Log, c.Store = nil, nil
	return errors.Join(errs...)
}

func (c *Copy) close() {
	_ = c.closeData()
	if c.lock != nil {
		_ = c.lock.Unlock()
	}
	*c = Copy{}
}
