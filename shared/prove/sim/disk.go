package sim

import (
	"slices"

	"github.com/dynast-io/dynast/shared/rules/entry"
)

// record is an entry of a log. Payload 0 is the first entry of an epoch.
type record struct {
	epoch   uint64
	payload uint64
}

// disk is one slot: a log that is partly synced. Entries before first are compacted: the database
// has them, but the log does not.
type disk struct {
	slot   int
	log    []record // the entry with index i is at position i-1
	synced int      // number of synced entries
	first  uint64
	owner  *process // the process that holds the slot's lock
	boot   int      // the boot of the host in which the last owner took the slot
	broken bool     // permanently unreadable

	wrongKeys  bool // the database differs from the log, unnoticed so far
	condemned  bool // a note: the copy is wrong and must not be used
	owesDefrag bool // a note: the database must be defragmented
}

// disk returns a slot. It creates the slot on first use.
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

// holds reports whether a position is in this log.
func (d *disk) holds(p entry.Position) bool {
	return p.IsZero() || d.at(p.Index) == p
}

// hasContent reports whether the log holds more than first entries of epochs.
func (d *disk) hasContent() bool {
	return slices.ContainsFunc(d.log, func(r record) bool { return r.payload != 0 })
}

// wipe discards the copy.
func (d *disk) wipe() { d.log, d.synced, d.first, d.wrongKeys = nil, 0, 1, false }

// put writes entries after an index. They replace all entries that were there.
func (d *disk) put(after uint64, rs []record) {
	if p := d.owner; p != nil && after < p.committed && after < uint64(len(d.log)) {
		p.w.fail("%s replaces entries from %d on, but has applied entries up to %d", p, after+1, p.committed)
	}
	if after < uint64(len(d.log)) {
		d.log = d.log[:after:after] // other slices may share the old end
	}
	d.log = append(d.log, rs...)
	d.synced = min(d.synced, int(after))
}

// replace installs a complete log.
func (d *disk) replace(log []record) {
	d.log, d.synced, d.wrongKeys = log[:len(log):len(log)], len(log), false
	d.first = uint64(len(log)) + 1
}

// own takes the slot for a process. named says that the owner may use the content in any case,
// because it is the named slot. Otherwise the content is used only if it was written in this boot
// of the host and is not condemned.
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

// cut removes the end of a log.
func (d *disk) cut(keep uint64) {
	d.log = d.log[:keep:keep]
	d.synced = min(d.synced, int(keep))
}
