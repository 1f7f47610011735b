package sim

import (
	"time"

	"github.com/dynast-io/dynast/shared/rules/core"
)

// writer owns the log of a process. It executes changes of the log one after the other.
type writer struct {
	jobs []job
	busy bool
	// starved says that the disk is full: entries from the leader are dropped until there may be
	// room.
	starved bool
}

// job is a change of the log. If the process is killed during a job, torn runs instead, if it is
// set.
type job struct {
	takes time.Duration
	do    func()
	torn  func()
	waits bool // for room on a full disk
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
		f.within(p, takes, f.killHeir, KilledInTakeover)
	} else {
		f.within(p, takes, f.killInWrite, KilledAnywhere)
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

// tear leaves the current job partly done. It returns false if there is none.
func (wr *writer) tear() bool {
	tears := wr.busy && wr.jobs[0].torn != nil
	if tears {
		wr.jobs[0].torn()
	}
	wr.jobs, wr.busy = nil, false
	return tears
}

// appendJob returns a job that writes records after an index. A crash leaves only some of them.
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

// propose appends the requests of clients. On a full disk the whole batch is refused, and its
// clients get an error.
func (p *process) propose() {
	batch := p.proposals
	p.proposals = nil
	p.proposing++
	j := p.appendJob(p.end, func() []record {
		rs := make([]record, len(batch))
		for i, payload := range batch {
			rs[i] = record{epoch: p.epoch, payload: payload}
		}
		return rs
	}, func() { p.post(core.Appended{Last: p.disk.last()}) })
	write := j.do
	j.do = func() {
		p.proposing--
		if p.refusing {
			return // the driver refuses the batch
		}
		if p.w.faults.diskFull {
			p.w.count(AppendRefused)
			return
		}
		write()
	}
	p.queue(j)
}

// beginEpoch appends the first entry of an epoch as soon as there is room.
func (p *process) beginEpoch(epoch uint64) {
	p.w.oracle.begins(p, epoch)
	j := p.appendJob(p.end, func() []record { return []record{{epoch: epoch}} },
		func() { p.post(core.Appended{Last: p.disk.last()}) })
	j.waits = true
	p.queue(j)
}

// received is the data behind core.Received.Ref.
type received struct {
	prev uint64
	rs   []record
}

// appendReceived appends the leader's entries that the log lacks. They replace entries of another
// leader.
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

// starve lets a follower fall behind while its disk is full. Then the follower asks for the
// entries that it lacks.
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

// beyond returns the part of a message that the log lacks.
func (p *process) beyond(r *received) (uint64, []record) {
	after, rs := r.prev, r.rs
	for len(rs) > 0 && after < p.end() && p.disk.log[after].epoch == rs[0].epoch {
		after, rs = after+1, rs[1:]
	}
	return after, rs
}

// install replaces the log by the leader's. A crash during this leaves the old copy, or a log
// that does not fit the database; then the next owner of the slot starts empty.
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
				d.wipe()
			}
		},
	})
}
