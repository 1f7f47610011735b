package sim

import (
	"fmt"
	"time"

	"github.com/dynast-io/dynast/shared/core"
)

// writer owns the log of a process: what changes it is done one job after the other.
type writer struct {
	jobs []job
	busy bool
	// starved: what the leader sends is dropped until there may be room for it.
	starved bool
}

// job is a change of the log. When the process is killed meanwhile, torn is
// done instead, if there is one.
type job struct {
	takes time.Duration
	do    func()
	torn  func()
	waits bool // for room, when the disk is full
}

func (p *process) queue(j job) {
	p.writer.jobs = append(p.writer.jobs, j)
	p.work()
}

func (p *process) work() {
	wr := &p.writer
	if wr.busy || len(wr.jobs) == 0 {
		return
	}
	wr.busy = true
	takes, f := wr.jobs[0].takes, &p.w.faults
	if p.inherits() {
		f.within(p, takes, f.strikeHeir, KilledInTakeover)
	} else {
		f.within(p, takes, f.strikeWrite, KilledAnywhere)
	}
	p.after(takes, func() {
		j := wr.jobs[0]
		if j.waits && f.diskFull {
			p.w.count(AppendRefused)
			p.after(roomPoll, func() { wr.busy = false; p.work() })
			return
		}
		wr.jobs = wr.jobs[1:]
		wr.busy = false
		j.do()
		if !p.dead {
			p.work()
		}
	})
}

// tear leaves the job that is under way half done; false when there is none.
func (wr *writer) tear() bool {
	tears := wr.busy && wr.jobs[0].torn != nil
	if tears {
		wr.jobs[0].torn()
	}
	wr.jobs, wr.busy = nil, false
	return tears
}

// appendJob writes records after an index; a crash leaves some of them.
func (p *process) appendJob(after func() uint64, rs func() []record, then func()) job {
	return job{
		takes: p.w.faults.write(p.w),
		do: func() {
			p.disk.put(after(), rs())
			then()
		},
		torn: func() {
			if all := rs(); p.disk != nil && len(all) > 0 {
				p.disk.put(after(), all[:p.w.rng.IntN(len(all)+1)])
			}
		},
	}
}

func (p *process) end() uint64 {
	if p.disk == nil {
		return 0
	}
	return uint64(len(p.disk.log))
}

// propose appends what clients ask for. On a full disk the batch is refused as
// a whole, and its clients are told so.
func (p *process) propose() {
	batch := p.proposals
	p.proposals = nil
	j := p.appendJob(p.end, func() []record {
		rs := make([]record, len(batch))
		for i, payload := range batch {
			rs[i] = record{epoch: p.epoch, payload: payload}
		}
		return rs
	}, func() { p.post(core.Appended{Last: p.disk.last()}) })
	write := j.do
	j.do = func() {
		if p.w.faults.diskFull {
			p.w.count(AppendRefused)
			return
		}
		write()
	}
	p.queue(j)
}

// beginEpoch appends the first entry of an epoch, once there is room for it.
func (p *process) beginEpoch(epoch uint64) {
	j := p.appendJob(p.end, func() []record { return []record{{epoch: epoch}} },
		func() { p.post(core.Appended{Last: p.disk.last()}) })
	j.waits = true
	p.queue(j)
}

// received is what core.Received refers to.
type received struct {
	prev uint64
	rs   []record
}

// appendReceived appends what the leader sent, less what is there already; an
// entry of another leader in the same place is replaced.
func (p *process) appendReceived(r *received) {
	p.queue(job{
		takes: p.w.faults.write(p.w),
		do: func() {
			if p.writer.starved {
				return
			}
			if r.prev > p.end() {
				p.resync("a gap in the entries")
				return
			}
			after, rs := p.beyond(r)
			if len(rs) > 0 && p.w.faults.diskFull {
				p.starve()
				return
			}
			if len(rs) > 0 {
				p.disk.put(after, rs)
			}
			p.post(core.Appended{Last: p.disk.last()})
		},
		torn: func() {
			if p.disk == nil || r.prev > p.end() {
				return
			}
			if after, rs := p.beyond(r); len(rs) > 0 {
				p.disk.put(after, rs[:p.w.rng.IntN(len(rs)+1)])
			}
		},
	})
}

// starve lets a follower fall behind while its disk is full; then it asks for
// what it lacks.
func (p *process) starve() {
	p.w.count(AppendRefused)
	p.writer.starved = true
	p.after(retryRoom, func() {
		p.queue(job{do: func() {
			p.writer.starved = false
			p.resync("the disk was full")
		}})
	})
}

// beyond is the part of a message that the log lacks.
func (p *process) beyond(r *received) (uint64, []record) {
	after, rs := r.prev, r.rs
	for len(rs) > 0 && after < p.end() && p.disk.log[after].epoch == rs[0].epoch {
		after, rs = after+1, rs[1:]
	}
	return after, rs
}

// install replaces the log by the leader's. A crash in the middle leaves the old
// copy or, between the steps, a log that does not fit the database: then the next
// owner of the slot starts empty.
func (p *process) install(log []record) {
	if p.w.faults.diskFull {
		p.resync("no room for a snapshot")
		return
	}
	p.queue(job{
		takes: p.w.faults.write(p.w),
		do: func() {
			p.disk.replace(log)
			p.post(core.Installed{Last: p.disk.last()})
		},
		torn: func() {
			if d := p.disk; d != nil && p.w.chance(0.5) {
				d.log, d.synced, d.first = nil, 0, 1
			}
		},
	})
}

// adopt appends what the log of another slot holds beyond the own last entry.
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
	case d.broken:
		return &core.AdoptFailed{Reason: fmt.Sprintf("slot %d cannot be read", d.slot)}
	case uint64(len(d.log)) < own.Index && p.disk.holds(d.last()):
		return nil // the own one goes on: with entries of the same leader, never acknowledged
	case own.Index+1 < d.first || !d.holds(own):
		return &core.AdoptFailed{Reason: "the own log is no prefix", Diverged: true}
	}
	return nil
}

// takeSlot leaves the own slot and opens another.
func (p *process) takeSlot(slot int, lost string, fatal bool) {
	p.queue(job{takes: p.w.between(200*time.Microsecond, 5*time.Millisecond), do: func() {
		d := p.w.disk(slot)
		if d.broken || d.owner != nil && d.owner != p {
			p.post(core.AdoptFailed{Reason: fmt.Sprintf("slot %d cannot be opened", slot), Fatal: fatal})
			return
		}
		if p.w.faults.diskFull && p.w.chance(0.3) {
			p.w.kill(p, "exit: the disk is full")
			return
		}
		p.w.faults.cutNamed(p.w, d)
		d.own(p, true)
		p.extend()
		p.post(core.Adopted{Last: d.last(), Slot: slot, Lost: lost})
	}})
}

// extend appends what other slots hold beyond the own last entry: a log can
// have lost its end, and who holds the entry at which it ends has the rest.
func (p *process) extend() {
	for {
		var best *disk
		for _, d := range p.w.disks {
			if d != p.disk && !d.broken && d.first <= p.end()+1 && p.end() > 0 && d.holds(p.disk.last()) &&
				p.disk.last().Less(d.last()) && (best == nil || best.last().Less(d.last())) {
				best = d
			}
		}
		if best == nil {
			return
		}
		p.disk.put(p.end(), best.log[p.end():])
	}
}

// mostComplete is the slot whose log reaches farthest, but for one of them.
func (w *world) mostComplete(but *disk) *disk {
	var best *disk
	for _, d := range w.disks {
		if d != but && !d.broken && len(d.log) > 0 && (best == nil || best.last().Less(d.last())) {
			best = d
		}
	}
	return best
}

// adoptBest looks for the most complete log among all slots.
func (p *process) adoptBest(reason string) {
	p.queue(job{takes: p.w.between(time.Millisecond, 5*time.Millisecond), do: func() {
		best := p.w.mostComplete(nil)
		if next := p.w.mostComplete(best); next != nil && best != p.disk && p.w.faults.hits(p.w, p.w.faults.hidesCopy, CopyHidden) {
			// Then who holds more than the new leader has to give way to it.
			p.w.tell("slot %d cannot be read for once", best.slot)
			best = next
		}
		switch {
		case best == nil:
			p.post(core.AdoptFailed{Reason: reason, Fatal: true})
		case best == p.disk:
			p.post(core.Adopted{Last: best.last(), Slot: best.slot, Lost: reason})
		case p.disk != nil && p.cannotAdopt(best) == nil:
			p.disk.put(p.end(), best.log[p.end():])
			p.post(core.Adopted{Last: p.disk.last(), Slot: p.disk.slot, Lost: reason})
		default:
			p.takeSlot(best.slot, reason, true)
		}
	}})
}
