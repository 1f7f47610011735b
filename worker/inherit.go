package worker

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/datadir"
	"github.com/dynast-io/dynast/shared/entry"
	replog "github.com/dynast-io/dynast/shared/log"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/proc"
	"github.com/dynast-io/dynast/shared/roster"
)

// tryLock tries cluster.lock and reads succession.json. A process that holds
// the lock holds it for life.
func (m *Member) tryLock() {
	if slot := m.replica.current().slot; slot.Number != 0 {
		if reason, condemned := slot.Condemned(); condemned {
			m.fatal(core.ExitCorrupt, fmt.Errorf("this copy must not be led with, it is condemned: %s", reason))
			return
		}
	}
	if m.lock == nil {
		lock, err := proc.TryLock(m.dir.ClusterLock())
		switch {
		case errors.Is(err, proc.ErrLocked):
			m.post(m.lockHeld())
			return
		case err != nil:
			m.fatal(core.ExitError, err)
			return
		}
		m.lock = lock
		m.installs.Add(1) // a snapshot that waits for room comes too late
	}
	s, err := m.readSuccession()
	ev := core.LockTaken{Succession: toCore(s, err)}
	ev.Unreadable = err != nil && !errors.Is(err, os.ErrNotExist)
	if ev.Succession == nil {
		if ev.AnyData, err = m.anyData(); err != nil {
			m.fatal(core.ExitError, err)
			return
		}
	}
	m.post(ev)
}

// anyData reports whether some slot holds a write, or a log that cannot be
// read whole: then this is no new cluster. First entries of epochs are no writes: a
// first start that was killed leaves them.
func (m *Member) anyData() (bool, error) {
	slots, err := m.dir.Slots()
	if err != nil {
		return false, err
	}
	for _, n := range slots {
		s := m.dir.Slot(n)
		entries, _, err := replog.Read(s.LogDir(), entry.Position{}, m.replica.logOptions(s))
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

// lockHeld tells who holds the lock: whom succession.json names, or a process
// that is on its way there.
func (m *Member) lockHeld() core.LockHeld {
	ev := core.LockHeld{Succession: toCore(m.readSuccession())}
	if owner, err := proc.ReadOwner(m.dir.ClusterLock()); err == nil {
		ev.Holder = roster.ID{PID: owner.Identity.PID, StartTime: owner.Identity.StartTime}
		ev.HolderStopped = proc.Stopped(owner.Identity)
	}
	return ev
}

func (m *Member) readSuccession() (*datadir.Succession, error) {
	s, err := m.dir.ReadSuccession()
	if err != nil {
		return nil, err
	}
	return &s, nil
}

func toCore(s *datadir.Succession, err error) *core.Succession {
	if err != nil || s == nil {
		return nil
	}
	id, err := successionLeader(*s)
	if err != nil {
		return nil
	}
	return &core.Succession{Epoch: s.Epoch, Slot: s.Slot, Leader: id}
}

// lastOf is where the log of a slot ends, without opening it as one's own.
func (m *Member) lastOf(slot int) (entry.Position, error) {
	s := m.dir.Slot(slot)
	if slot == m.replica.current().slot.Number {
		return m.replica.last(), nil
	}
	return replog.LastPosition(s.LogDir(), m.replica.logOptions(s))
}

// adopt appends what the log of another slot holds beyond the own last entry.
func (m *Member) adopt(slot int) {
	m.writer.do(func() {
		err := m.adoptFrom(slot)
		switch {
		case err == nil:
			m.post(core.Adopted{Last: m.replica.last(), Slot: m.replica.current().slot.Number})
		default:
			m.post(core.AdoptFailed{
				Reason:   fmt.Sprintf("the log of slot %d cannot be read: %v", slot, err),
				Diverged: errors.Is(err, replog.ErrDiverged) || errors.Is(err, replog.ErrCompacted),
			})
		}
	})
}

// adoptFrom appends what the log of another slot holds beyond the own last
// entry. That the own one goes on where the other ends is fine too: entries of
// the same leader, which nobody was answered for.
func (m *Member) adoptFrom(slot int) error {
	log := m.replica.current().log
	s := m.dir.Slot(slot)
	began := time.Now()
	own := log.Last()
	entries, last, err := replog.Read(s.LogDir(), own, m.replica.logOptions(s))
	if err != nil {
		return err
	}
	if last.Index < own.Index {
		epoch, ok := log.EpochAt(last.Index)
		switch {
		case !ok:
			return fmt.Errorf("it ends at %s, long before the own log, at %s", last, own)
		case epoch != last.Epoch:
			return fmt.Errorf("%w: it ends at %s, the own log at %s", replog.ErrDiverged, last, own)
		}
		m.logger.Warn("a log ends before the own one", "slot", slot, "last", last, "own", own)
		return nil
	}
	if len(entries) > 0 {
		if err := m.waitForRoom("the takeover", func() error { return log.Append(entries) }); err != nil {
			return fmt.Errorf("append adopted entries: %w", err)
		}
	}
	m.logger.Debug("adopted", "slot", slot, "entries", len(entries), "last", last, "took", time.Since(began))
	return nil
}

// takeSlot leaves the own slot and opens another as the own one: the one that
// is named, or the first of a new cluster.
func (m *Member) takeSlot(slot int) {
	m.writer.do(func() {
		why := asTruth
		if _, err := m.readSuccession(); errors.Is(err, os.ErrNotExist) {
			why = asFirst
		}
		if err := m.exchange(slot, why); err != nil {
			if !m.diskFull(err) {
				m.post(core.AdoptFailed{Reason: err.Error()})
			}
			return
		}
		var seen uint64
		if finds, err := m.survey(); err == nil {
			m.extend(finds)
			seen = greatestEpoch(finds)
		}
		m.post(core.Adopted{Last: m.replica.last(), Slot: slot, Seen: seen})
	})
}

// exchange opens a slot in place of the open one; on failure the old one is
// opened again, if there was one.
func (m *Member) exchange(slot int, why purpose) error {
	old := m.replica.current().slot
	m.replica.leave()
	err := m.replica.open(m.dir.Slot(slot), m.self, m.address.String(), why)
	if err == nil {
		return nil
	}
	if old.Number != 0 {
		err = errors.Join(err, m.replica.open(old, m.self, m.address.String(), asCopy))
	}
	return err
}

// diskFull ends the process when it is room that is missing, and not data.
func (m *Member) diskFull(err error) bool {
	if !proc.NoSpace(err) {
		return false
	}
	m.fatal(member.ExitDisk, fmt.Errorf("the disk of %s is full, make room and start again: %w", m.dir.Path(), err))
	return true
}

// writeSuccession names this member, durably.
func (m *Member) writeSuccession(epoch uint64) {
	slot := m.replica.current().slot.Number
	go func() {
		boot, err := proc.BootID()
		if err == nil {
			err = m.dir.WriteSuccession(m.succession(epoch, slot, boot))
		}
		if err != nil {
			m.post(core.SuccessionFailed{Reason: err.Error()})
			return
		}
		m.post(core.SuccessionWritten{})
	}()
}
