package replica

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dynast-io/dynast/shared/host/datadir"
	replog "github.com/dynast-io/dynast/shared/replica/log"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/entry"
)

// lastOf returns the last position in the log of a slot. It does not open the slot as the
// own one.
func (r *Replica) lastOf(slot int) (entry.Position, error) {
	s := r.Dir.Slot(slot)
	if slot == r.Current().Slot.Number {
		return r.Last(), nil
	}
	return replog.LastPosition(s.LogDir(), r.logOptions(s))
}

// completedOf returns the last entry in the log of a slot whose epoch was completed.
func (r *Replica) completedOf(slot int, completed func(epoch uint64) bool) (entry.Position, error) {
	s := r.Dir.Slot(slot)
	return replog.LastOf(s.LogDir(), r.logOptions(s), completed)
}

// Adopt appends the entries of another slot's log that follow the own last entry.
func (r *Replica) Adopt(slot int) {
	r.writer.do(func() {
		err := r.adoptFrom(slot)
		switch {
		case err == nil:
			r.Post(core.Adopted{Last: r.Last(), Slot: r.Current().Slot.Number})
		default:
			r.Post(core.AdoptFailed{
				Reason:   fmt.Sprintf("the log of slot %d cannot be read: %v", slot, err),
				Diverged: errors.Is(err, replog.ErrDiverged) || errors.Is(err, replog.ErrCompacted),
			})
		}
	})
}

// adoptFrom appends the entries of another slot's log that follow the own last entry. The
// own log may also be the longer one: its additional entries come from the same leader and
// were never acknowledged to a client.
func (r *Replica) adoptFrom(slot int) error {
	log := r.Current().Log
	began := time.Now()
	own := log.Last()
	entries, last, err := r.readAhead.read(slot, own, r.logOptions(r.Dir.Slot(slot)))
	if err != nil {
		return err
	}
	if last.Index < own.Index {
		epoch, ok := log.EpochAt(last.Index)
		switch {
		case !ok:
			return fmt.Errorf("it ends at %s, long before the own log, which ends at %s", last, own)
		case epoch != last.Epoch:
			return fmt.Errorf("%w: it ends at %s, the own log ends at %s", replog.ErrDiverged, last, own)
		}
		r.Log.Warn("the log of another slot ends before the own log", "slot", slot, "last", last, "own", own)
		return nil
	}
	if len(entries) > 0 {
		if err := r.Space.await("the takeover", func() error { return log.Append(entries) }); err != nil {
			return fmt.Errorf("append adopted entries: %w", err)
		}
	}
	r.Log.Debug("adopted", "slot", slot, "entries", len(entries), "last", last, "took", time.Since(began))
	return nil
}

// TakeSlot leaves the own slot and opens another one in its place: the slot that
// succession.json names, or the first slot of a new cluster.
func (r *Replica) TakeSlot(slot int) {
	r.writer.do(func() {
		why := asOriginal
		if _, err := r.Dir.ReadSuccession(); errors.Is(err, os.ErrNotExist) {
			why = asNew
		}
		if err := r.exchange(slot, why); err != nil {
			if !r.diskFull(err) {
				r.Post(core.AdoptFailed{Reason: err.Error()})
			}
			return
		}
		var seen uint64
		if logs, err := r.survey(); err == nil {
			r.extend(logs)
			seen = greatestEpoch(logs)
		}
		r.Post(core.Adopted{Last: r.Last(), Slot: slot, Seen: seen})
	})
}

// exchange opens a slot in place of the open one. If that fails, it opens the old slot
// again, if there was one.
func (r *Replica) exchange(slot int, why purpose) error {
	old := r.Current().Slot
	r.leave()
	err := r.open(r.Dir.Slot(slot), why)
	if err == nil {
		return nil
	}
	if old.Number != 0 {
		err = errors.Join(err, r.open(old, asCopy))
	}
	return err
}

// ReadClaims returns the content of claims.json. The result is nil if the file does not
// exist, as in a data directory of an older version, or if it cannot be read.
func ReadClaims(dir *datadir.Dir, log hclog.Logger) (c *core.Claims, unreadable bool) {
	claims, err := dir.ReadClaims()
	switch {
	case err == nil:
		return &core.Claims{Epoch: claims.Epoch, Abandoned: claims.Abandoned}, false
	case errors.Is(err, os.ErrNotExist):
		return nil, false
	}
	log.Warn("cannot read claims.json, taking the next epoch from the wall clock", "error", err)
	return nil, true
}

// AnyData reports whether a slot holds a write or a log that cannot be read completely. In
// both cases the cluster is not new. The first entry of an epoch does not count as a write,
// because a first start that was killed leaves such entries.
func (r *Replica) AnyData() (bool, error) {
	slots, err := r.Dir.Slots()
	if err != nil {
		return false, err
	}
	for _, n := range slots {
		s := r.Dir.Slot(n)
		entries, _, err := replog.Read(s.LogDir(), entry.Position{}, r.logOptions(s))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		written := func(e entry.Entry) bool { return len(e.Data) > 0 }
		if err != nil || slices.ContainsFunc(entries, written) {
			return true, nil
		}
	}
	return false, nil
}
