package sim

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/entry"
)

// adopt appends the entries of another slot's log after the own last entry.
func (p *process) adopt(slot int) {
	d := p.w.disk(slot)
	reads := p.w.between(100*time.Microsecond, 3*time.Millisecond)
	lacks := func() []record { return d.log[min(p.end(), uint64(len(d.log))):] }
	j := p.appendJob(p.end, lacks, func() { p.post(core.Adopted{Last: p.disk.last(), Slot: p.disk.slot}) })
	write, torn := j.do, j.torn
	j.takes += reads
	j.waits = true
	j.do = func() {
		if fail := p.cannotAdopt(d); fail != nil {
			p.post(*fail)
			return
		}
		write()
	}
	j.torn = func() {
		if p.disk != nil && p.cannotAdopt(d) == nil {
			torn()
		}
	}
	p.queue(j)
}

func (p *process) cannotAdopt(d *disk) *core.AdoptFailed {
	own := p.disk.last()
	switch {
	case d.broken || len(d.log) == 0:
		return &core.AdoptFailed{Reason: fmt.Sprintf("slot %d cannot be read", d.slot)}
	case uint64(len(d.log)) < own.Index && p.disk.holds(d.last()):
		return nil // the own log continues it, with entries of the same leader that were never acknowledged
	case own.Index+1 < d.first || !d.holds(own):
		return &core.AdoptFailed{Reason: "the own log is no prefix", Diverged: true}
	}
	return nil
}

// adoptNow does the same at once, for a caller that already owns the writer.
func (p *process) adoptNow(d *disk) bool {
	if p.disk == nil || d != p.disk && p.cannotAdopt(d) != nil {
		return false
	}
	if end := p.end(); end < uint64(len(d.log)) {
		p.disk.put(end, d.log[end:])
	}
	return true
}

// opens makes a slot the own one, to lead with it. It discards nothing in the slot.
func (p *process) opens(d *disk) bool {
	if d.broken || d.condemned || d.owner != nil && d.owner != p || len(d.log) == 0 && p.w.succession != nil {
		return false
	}
	d.own(p, true)
	return true
}

// takeSlot leaves the own slot and opens another one.
func (p *process) takeSlot(slot int) {
	p.queue(job{takes: p.w.between(200*time.Microsecond, 5*time.Millisecond), do: func() {
		d := p.w.disk(slot)
		if p.w.faults.diskFull && p.w.chance(0.3) {
			p.w.kill(p, "exit: the disk is full")
			return
		}
		p.w.faults.cutNamed(p.w, d)
		if !p.opens(d) {
			p.post(core.AdoptFailed{Reason: fmt.Sprintf("slot %d cannot be opened", slot)})
			return
		}
		finds := p.w.survey()
		p.extend(finds)
		p.post(core.Adopted{Last: d.last(), Slot: slot, Seen: greatestEpoch(finds)})
	}})
}

// survey lists the slots whose logs are readable, the most complete one first.
func (w *world) survey() []*disk {
	var finds []*disk
	for _, d := range w.disks {
		if !d.broken && len(d.log) > 0 {
			finds = append(finds, d)
		}
	}
	slices.SortStableFunc(finds, func(a, b *disk) int {
		return cmp.Or(comparePositions(w.completed(b), w.completed(a)), comparePositions(b.last(), a.last()))
	})
	return finds
}

func comparePositions(a, b entry.Position) int {
	return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Index, b.Index))
}

// completed returns the last entry of an epoch in which a write can have been acknowledged.
func (w *world) completed(d *disk) entry.Position {
	var c core.Claims
	if w.claims != nil {
		c = *w.claims
	}
	var named uint64
	if w.succession != nil {
		named = w.succession.Epoch
	}
	i := uint64(len(d.log))
	for i > 0 && !c.Completed(d.log[i-1].epoch, named) {
		i--
	}
	return d.at(i)
}

// extend appends what other slots hold after the own last entry. A log can have lost its end; a
// slot that holds the entry at which it ends has the rest.
func (p *process) extend(finds []*disk) {
	for _, d := range finds {
		if d != p.disk && p.disk.last().Less(d.last()) && d.holds(p.disk.last()) {
			p.adoptNow(d)
		}
	}
}

// adoptBest searches the most complete log among all slots. The loss is unknown, unless the named
// log was readable after all.
func (p *process) adoptBest(reason string) {
	p.queue(job{takes: p.w.between(time.Millisecond, 5*time.Millisecond), do: func() {
		finds := p.w.faults.hideCopy(p, p.w.survey())
		if !p.ownsBest(finds) {
			p.post(core.AdoptFailed{Reason: reason, Fatal: true})
			return
		}
		p.extend(finds)
		if s := p.w.succession; s != nil {
			named := p.w.disk(s.Slot)
			if slices.Contains(finds, named) && p.adoptNow(named) {
				reason = ""
			} else if named != p.disk { // the named slot is put aside
				named.wipe()
				named.broken, named.condemned = false, false
			}
		}
		p.post(core.Adopted{Last: p.disk.last(), Slot: p.disk.slot, Seen: greatestEpoch(finds), Lost: reason})
	}})
}

func greatestEpoch(finds []*disk) uint64 {
	var greatest uint64
	for _, d := range finds {
		greatest = max(greatest, d.last().Epoch)
	}
	return greatest
}

// ownsBest makes the most complete slot the own one, or makes the own one as complete. If a
// living member owns a more complete slot and could lead with it, the search ends, because that
// member must lead.
func (p *process) ownsBest(finds []*disk) bool {
	for _, d := range finds {
		switch {
		case d == p.disk || p.adoptNow(d) || p.opens(d):
			return true
		case !d.condemned && d.owner != nil:
			return false
		}
	}
	return false
}

// usable reports whether a process could lead with a slot.
func (d *disk) usable(p *process) bool {
	return !d.broken && !d.condemned && len(d.log) > 0 && (d.owner == nil || d.owner == p)
}

// hideCopy makes the most complete slot unreadable once, if another slot could serve. A process
// that holds more than the new leader must then give way to it.
func (f *faults) hideCopy(p *process, finds []*disk) []*disk {
	w := p.w
	if len(finds) < 2 || finds[0] == p.disk || w.succession != nil && w.succession.Slot == finds[0].slot ||
		!slices.ContainsFunc(finds[1:], func(d *disk) bool { return d.usable(p) }) || !f.hits(w, f.hidesCopy, CopyHidden) {
		return finds
	}
	w.tell("slot %d cannot be read for once", finds[0].slot)
	return finds[1:]
}
