package worker

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/entry"
	"github.com/dynast-io/dynast/shared/proc"
)

// find is what a look at the log of a slot showed.
type find struct {
	slot int
	last entry.Position
	err  error
}

func (f find) String() string {
	if f.err != nil {
		return fmt.Sprintf("slot %d: %v", f.slot, f.err)
	}
	return fmt.Sprintf("slot %d: its log ends at %s", f.slot, f.last)
}

// survey looks at all slots, the most complete log first.
func (m *Member) survey() ([]find, error) {
	slots, err := m.dir.Slots()
	if err != nil {
		return nil, err
	}
	var finds []find
	for _, n := range slots {
		last, err := m.lastOf(n)
		if errors.Is(err, os.ErrNotExist) {
			err = errors.New("it has no log")
		}
		finds = append(finds, find{slot: n, last: last, err: err})
	}
	slices.SortStableFunc(finds, func(a, b find) int {
		switch {
		case a.last.Less(b.last):
			return 1
		case b.last.Less(a.last):
			return -1
		}
		return 0
	})
	return finds, nil
}

// adoptBest falls back to the most complete copy there is, when the named one
// cannot be owned. What it may lack cannot be known, and is reported; unless it
// was the database that is damaged, and the log is whole.
func (m *Member) adoptBest(reason string) {
	m.writer.do(func() {
		finds, err := m.survey()
		if err != nil {
			m.post(core.AdoptFailed{Fatal: true, Reason: fmt.Sprintf("%s; and the slots cannot be listed: %v", reason, err)})
			return
		}
		own, better := m.ownBest(finds)
		if better != 0 {
			m.post(core.AdoptFailed{Fatal: true, Reason: fmt.Sprintf("%s; and slot %d has the most complete log of all, which a living member owns: "+
				"that one is to lead (%s)", reason, better, list(finds))})
			return
		}
		for _, f := range finds {
			if own == 0 && m.diskFull(f.err) {
				return
			}
		}
		if own == 0 {
			m.post(core.AdoptFailed{Fatal: true, Reason: fmt.Sprintf("%s; and no slot can be used (%s). Nothing was changed. "+
				"Restore a backup, or move the data directory away to start empty", reason, list(finds))})
			return
		}
		m.extend(finds)
		last := m.replica.last()
		named, whole := m.namedIsWhole(finds)
		if whole {
			m.logger.Warn("the named slot cannot be opened; its log is whole and was adopted", "named", named, "reason", reason, "slot", own, "last", last)
			m.post(core.Adopted{Last: last, Slot: own, Seen: greatestEpoch(finds)})
			return
		}
		lost := fmt.Sprintf("%s; going on with slot %d, whose log ends at %s: writes acknowledged after index %d, if there were any, are lost (%s)",
			reason, own, last, last.Index, list(finds))
		if named != 0 && named != own {
			lost += m.putAside(named)
		}
		m.post(core.Adopted{Last: last, Slot: own, Seen: greatestEpoch(finds), Lost: lost})
	})
}

// greatestEpoch is the greatest one in any of the logs; epochs never go back
// within one.
func greatestEpoch(finds []find) uint64 {
	var greatest uint64
	for _, f := range finds {
		greatest = max(greatest, f.last.Epoch)
	}
	return greatest
}

// ownBest makes the most complete slot that can be opened, or the own one with
// its entries, the open copy; 0 when there is none. What was wrong with the others
// is noted. A better one that a living member owns ends the search: with a lesser
// one, what that member holds would be given up.
func (m *Member) ownBest(finds []find) (own, better int) {
	for i := range finds {
		f := &finds[i]
		own := m.replica.current().slot.Number
		switch {
		case f.err != nil || f.last.IsZero():
			continue
		case f.slot == own || own != 0 && m.adoptFrom(f.slot) == nil:
			return own, 0
		}
		f.err = m.exchange(f.slot, asTruth)
		switch {
		case f.err == nil:
			return f.slot, 0
		case errors.Is(f.err, proc.ErrLocked):
			return 0, f.slot
		}
	}
	return 0, 0
}

// extend appends what other slots hold beyond the own last entry: a log can
// have lost its end, and entries of the same leader that follow are as good here
// as there.
func (m *Member) extend(finds []find) {
	for _, f := range finds {
		own := m.replica.last()
		if f.slot == m.replica.current().slot.Number || !own.Less(f.last) {
			continue
		}
		if err := m.adoptFrom(f.slot); err != nil {
			m.logger.Warn("a longer log cannot be gone on with", "slot", f.slot, "last", f.last, "own", own, "error", err)
			continue
		}
		m.logger.Warn("the log ended before that of another slot, and goes on with it", "slot", f.slot, "from", own, "to", m.replica.last())
	}
}

// namedIsWhole reports whether the log of the slot that succession.json names is
// known to have lost nothing, and is a beginning of the own one.
func (m *Member) namedIsWhole(finds []find) (named int, whole bool) {
	s, err := m.readSuccession()
	if err != nil {
		return 0, false
	}
	for _, f := range finds {
		if f.slot == s.Slot {
			return s.Slot, !f.last.IsZero() && !errors.Is(f.err, errLogBehind) && m.adoptFrom(f.slot) == nil
		}
	}
	return s.Slot, false
}

// putAside keeps what is left of a slot from being overwritten by the follower
// that gets its number next. It returns what is to be told.
func (m *Member) putAside(slot int) string {
	from := m.dir.Slot(slot).Path()
	to := fmt.Sprintf("%s.damaged-%s", from, time.Now().UTC().Format("20060102T150405.000Z"))
	err := os.Rename(from, to)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return ""
	case err != nil:
		return fmt.Sprintf("; what is left of slot %d could not be kept: %v", slot, err)
	}
	return fmt.Sprintf("; what is left of slot %d is kept in %s until somebody removes it", slot, to)
}

func list(finds []find) string {
	if len(finds) == 0 {
		return "there are no slots"
	}
	var b strings.Builder
	for i, f := range finds {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(f.String())
	}
	return b.String()
}
