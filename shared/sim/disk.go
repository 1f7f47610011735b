package sim

import (
	"slices"

	"github.com/dynast-io/dynast/shared/entry"
)

// record is an entry of a log: payload 0 for the first entry of an epoch.
type record struct {
	epoch   uint64
	payload uint64
}

// disk is one slot: a log, of which a part is synced. Entries before first are
// compacted: the database has them, the log cannot hand them out any more.
type disk struct {
	slot   int
	log    []record // the entry with index i is at i-1
	synced int      // entries
	first  uint64
	owner  *process // holds the slot's lock
	boot   int      // of the host at which the last owner took it
	broken bool     // cannot be read by anybody, ever again

	foul       bool // the database has other keys than the log says, which nobody sees
	condemned  bool // somebody saw it, and left a note
	owesDefrag bool // a note, too
}

// disk returns a slot, made at first use.
func (w *world) disk(slot int) *disk {
	for len(w.disks) <= slot {
		w.disks = append(w.disks, &disk{slot: len(w.disks), first: 1})
	}
	return w.disks[slot]
}

func (d *disk) last() entry.Position { return d.at(uint64(len(d.log))) }

func (d *disk) at(index uint64) entry.Position {
	if index == 0 || index > uint64(len(d.log)) {
		return entry.Position{}
	}
	return entry.Position{Epoch: d.log[index-1].epoch, Index: index}
}

// holds reports whether a position lies in this log.
func (d *disk) holds(p entry.Position) bool {
	return p.IsZero() || d.at(p.Index) == p
}

// hasContent reports whether there is more than the first entries of epochs.
func (d *disk) hasContent() bool {
	return slices.ContainsFunc(d.log, func(r record) bool { return r.payload != 0 })
}

// wipe throws the copy away.
func (d *disk) wipe() { d.log, d.synced, d.first, d.foul = nil, 0, 1, false }

// put writes entries from an index on; what was there from there on is replaced.
func (d *disk) put(after uint64, rs []record) {
	if p := d.owner; p != nil && after < p.committed && after < uint64(len(d.log)) {
		p.w.fail("%s replaces entries from %d on, and has applied up to %d", p, after+1, p.committed)
	}
	if after < uint64(len(d.log)) {
		d.log = d.log[:after:after] // others still hold the old end
	}
	d.log = append(d.log, rs...)
	d.synced = min(d.synced, int(after))
}

// replace installs another's log as a whole.
func (d *disk) replace(log []record) {
	d.log, d.synced, d.foul = log[:len(log):len(log)], len(log), false
	d.first = uint64(len(log)) + 1
}

// own takes the slot for a process. trusted says that the owner may go on with
// what is there: it is the named slot, or this boot of the host wrote it.
func (d *disk) own(p *process, named bool) {
	if p.disk != nil && p.disk != d {
		p.disk.owner = nil
	}
	if d.boot != p.w.boot && !named || d.broken {
		d.wipe()
	}
	if d.condemned && !named {
		d.wipe()
		d.condemned = false
	}
	d.broken = false
	d.owner, d.boot = p, p.w.boot
	p.disk = d
}

// cut takes the end of a log away.
func (d *disk) cut(keep uint64) {
	d.log = d.log[:keep:keep]
	d.synced = min(d.synced, int(keep))
}
