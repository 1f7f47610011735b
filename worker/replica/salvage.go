package replica

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/entry"
)

// slotLog describes the log of one slot.
type slotLog struct {
	slot int
	last entry.Position
	// completed is the last entry of an epoch in which writes may have been acknowledged. It
	// shows how complete the log is.
	completed entry.Position
	err       error
}

func (f slotLog) String() string {
	if f.err != nil {
		return fmt.Sprintf("slot %d: %v", f.slot, f.err)
	}
	return fmt.Sprintf("slot %d: its log ends at %s", f.slot, f.last)
}

// survey looks at all slots and returns them with the most complete log first.
func (r *Replica) survey() ([]slotLog, error) {
	slots, err := r.Dir.Slots()
	if err != nil {
		return nil, err
	}
	completed := r.completedEpochs()
	var logs []slotLog
	for _, n := range slots {
		f := slotLog{slot: n}
		f.last, f.err = r.lastOf(n)
		if f.err == nil && !f.last.IsZero() {
			f.completed, f.err = r.completedOf(n, completed)
		}
		if errors.Is(f.err, os.ErrNotExist) {
			f.err = errors.New("it has no log")
		}
		logs = append(logs, f)
	}
	sortLogs(logs)
	return logs, nil
}

// sortLogs puts the most complete log first.
func sortLogs(logs []slotLog) {
	slices.SortStableFunc(logs, func(a, b slotLog) int {
		return cmp.Or(comparePositions(b.completed, a.completed), comparePositions(b.last, a.last))
	})
}

func comparePositions(a, b entry.Position) int {
	switch {
	case a.Less(b):
		return -1
	case b.Less(a):
		return 1
	}
	return 0
}

// completedEpochs returns a function that reports whether writes may have been acknowledged in
// an epoch.
func (r *Replica) completedEpochs() func(epoch uint64) bool {
	var claims core.Claims
	if c, _ := ReadClaims(r.Dir, r.Log); c != nil {
		claims = *c
	}
	var named uint64
	if s, err := r.Dir.ReadSuccession(); err == nil {
		named = s.Epoch
	}
	return func(epoch uint64) bool { return claims.Completed(epoch, named) }
}

// AdoptBest falls back to the most complete copy if the slot that succession.json names cannot
// be opened. It reports a possible loss, because the writes that the copy lacks cannot be known.
// There is no loss if only the named database is damaged and the named log is complete.
func (r *Replica) AdoptBest(reason string) {
	r.writer.do(func() {
		logs, err := r.survey()
		if err != nil {
			r.Post(core.AdoptFailed{Fatal: true, Reason: fmt.Sprintf("%s; and the slots cannot be listed: %v", reason, err)})
			return
		}
		own, better := r.ownBest(logs)
		if better != 0 {
			r.Post(core.AdoptFailed{Fatal: true, Reason: fmt.Sprintf("%s; and a living member owns slot %d, which has the most complete log: "+
				"that member has to lead (%s)", reason, better, list(logs))})
			return
		}
		for _, f := range logs {
			if own == 0 && r.diskFull(f.err) {
				return
			}
		}
		if own == 0 {
			r.Post(core.AdoptFailed{Fatal: true, Reason: fmt.Sprintf("%s; and no slot can be used (%s). Nothing was changed. "+
				"Restore a backup, or move the data directory away to start empty", reason, list(logs))})
			return
		}
		r.extend(logs)
		last := r.Last()
		named, complete := r.namedIsComplete(logs)
		if complete {
			r.Log.Warn("cannot open the named slot; its log is complete and was adopted", "named", named, "reason", reason, "slot", own, "last", last)
			r.Post(core.Adopted{Last: last, Slot: own, Seen: greatestEpoch(logs)})
			return
		}
		lost := fmt.Sprintf("%s; continuing with slot %d, whose log ends at %s: writes acknowledged after index %d, if any, are lost (%s)",
			reason, own, last, last.Index, list(logs))
		if named != 0 && named != own {
			lost += r.putAside(named)
		}
		r.Post(core.Adopted{Last: last, Slot: own, Seen: greatestEpoch(logs), Lost: lost})
	})
}

// greatestEpoch returns the greatest epoch in any of the logs. Within a log epochs never
// decrease, so the last entry has the greatest one.
func greatestEpoch(logs []slotLog) uint64 {
	var greatest uint64
	for _, f := range logs {
		greatest = max(greatest, f.last.Epoch)
	}
	return greatest
}

// ownBest makes the most complete slot the open copy, or keeps the own slot and appends the
// entries of the most complete one. It returns 0 if no slot can be used, and records the reasons in logs.
// If a living member owns a better slot, the search ends and better names that slot: with a
// lesser one, the entries of that member would be lost.
func (r *Replica) ownBest(logs []slotLog) (own, better int) {
	for i := range logs {
		f := &logs[i]
		own := r.Current().Slot.Number
		switch {
		case f.err != nil || f.last.IsZero():
			continue
		case f.slot == own || own != 0 && r.adoptFrom(f.slot) == nil:
			return own, 0
		}
		f.err = r.exchange(f.slot, asOriginal)
		switch {
		case f.err == nil:
			return f.slot, 0
		case errors.Is(f.err, proc.ErrLocked):
			return 0, f.slot
		}
	}
	return 0, 0
}

// extend appends entries from other slots that follow the own last entry. The own log can have
// lost its end, and the same leader's entries from another slot can replace it.
func (r *Replica) extend(logs []slotLog) {
	for _, f := range logs {
		own := r.Last()
		if f.slot == r.Current().Slot.Number || !own.Less(f.last) {
			continue
		}
		if err := r.adoptFrom(f.slot); err != nil {
			r.Log.Warn("cannot continue with a longer log", "slot", f.slot, "last", f.last, "own", own, "error", err)
			continue
		}
		r.Log.Info("extended the own log with entries from another slot", "slot", f.slot, "from", own, "to", r.Last())
	}
}

// namedIsComplete reports whether the log of the slot that succession.json names is complete and
// the own log contains all of it.
func (r *Replica) namedIsComplete(logs []slotLog) (named int, complete bool) {
	s, err := r.Dir.ReadSuccession()
	if err != nil {
		return 0, false
	}
	for _, f := range logs {
		if f.slot == s.Slot {
			return s.Slot, !f.last.IsZero() && !errors.Is(f.err, errLogBehind) && r.adoptFrom(f.slot) == nil
		}
	}
	return s.Slot, false
}

// putAside renames the directory of a damaged slot, so that the next follower with this slot
// number does not overwrite it. It returns text for the report.
func (r *Replica) putAside(slot int) string {
	from := r.Dir.Slot(slot).Path()
	to := fmt.Sprintf("%s.damaged-%s", from, time.Now().UTC().Format("20060102T150405.000Z"))
	err := os.Rename(from, to)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return ""
	case err != nil:
		return fmt.Sprintf("; could not move the damaged slot %d aside: %v", slot, err)
	}
	return fmt.Sprintf("; the damaged slot %d was moved to %s, which dynast does not remove", slot, to)
}

func list(logs []slotLog) string {
	if len(logs) == 0 {
		return "there are no slots"
	}
	var b strings.Builder
	for i, f := range logs {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(f.String())
	}
	return b.String()
}
