package sim

import (
	"slices"
	"time"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/roster"
)

// lock is cluster.lock: freed by the death of its holder, sometimes a moment
// later, when a child of the holder has not called exec yet.
type lock struct {
	holder *process
	until  time.Duration // a dead holder's child lets go then
}

// tryLock takes the lock if nobody has it.
func (w *world) tryLock(p *process) bool {
	switch h := w.lock.holder; {
	case h == p:
		return true
	case h != nil && (!h.dead || w.now < w.lock.until):
		return false
	}
	w.lock.holder = p
	return true
}

const firstPID = 101

// start makes a process. Its core gets its first event by boot.
func (w *world) start(a roster.Address) *process {
	pid := firstPID + len(w.processes)
	p := &process{w: w, id: roster.ID{Address: a, PID: pid, StartTime: uint64(w.now / 10e6)}, started: w.now, build: firstBuild}
	p.turn = p.run
	w.processes, w.living = append(w.processes, p), append(w.living, p)
	return p
}

// listening returns the process that is bound to an address.
func (w *world) listening(a roster.Address) *process {
	for _, p := range w.living {
		if p.id.Address == a {
			return p
		}
	}
	return nil
}

func (w *world) find(id roster.ID) *process {
	if i := id.PID - firstPID; i >= 0 && i < len(w.processes) && w.processes[i].id == id {
		return w.processes[i]
	}
	return nil
}

// alive returns who is alive now, for who goes on to kill some of them.
func (w *world) alive() []*process { return slices.Clone(w.living) }

// kill is SIGKILL, or the exit of a process: what it was doing is left half
// done, its locks are free, its pidfds are ready, its sockets are closed.
func (w *world) kill(p *process, why string) {
	if p.dead {
		return
	}
	w.tell("%s dies: %s", p, why)
	p.dead = true
	p.stopped = false
	p.mail, p.deferred = nil, nil
	w.living = slices.DeleteFunc(w.living, func(q *process) bool { return q == p })
	if p.writer.tear() {
		w.count(KilledInWrite)
	}
	if w.lock.holder == p {
		w.lock.until = w.now
		if w.faults.hits(w, w.faults.lockLingers, LockLingered) {
			w.lock.until += w.between(0, 40*time.Millisecond)
		}
	}
	if p.disk != nil {
		p.disk.owner = nil
	}
	for _, q := range w.living {
		if slices.Contains(q.watching, p.id) {
			w.announce(q, p.id)
		}
	}
	w.closeStreams(p)
}

// announce tells a watcher that a process is gone.
func (w *world) announce(q *process, id roster.ID) {
	w.after(w.between(10*time.Microsecond, 2*time.Millisecond), func() {
		for i, x := range q.watching {
			if x == id {
				q.watching = append(q.watching[:i:i], q.watching[i+1:]...)
				q.post(core.Died{ID: id, Reason: "killed", At: time.Unix(0, int64(w.now)).UTC()})
				return
			}
		}
	})
}

// stop is SIGSTOP: nothing of the process runs; the kernel goes on holding its
// locks and keeping its sockets.
func (w *world) stop(p *process, d time.Duration) {
	if p.dead || p.stopped {
		return
	}
	p.stopped = true
	if d == 0 {
		w.count(StoppedForGood)
		w.tell("%s is stopped", p)
		return
	}
	w.count(Stopped)
	w.tell("%s is stopped for %s", p, d.Round(time.Microsecond))
	w.after(d, func() { w.resume(p) })
}

// resume is SIGCONT.
func (w *world) resume(p *process) {
	if p.dead || !p.stopped {
		return
	}
	w.tell("%s goes on", p)
	p.stopped = false
	late, d := p.deferred, time.Duration(0)
	p.deferred = nil
	for _, do := range late { // in their order: a stream delivers in order
		d += w.between(0, 5*time.Microsecond)
		p.after(d, do)
	}
	p.wakeUp()
}

// losePower ends everything at once. What was not synced may be gone, from
// any point on.
func (w *world) losePower() {
	w.tell("the host loses power")
	w.count(PowerLost)
	for _, p := range w.alive() {
		w.kill(p, "power loss")
	}
	w.lock.until = w.now
	w.boot++
	if w.successionBefore != w.succession && w.chance(0.5) {
		w.tell("succession.json is the one before")
		w.succession = w.successionBefore
	}
	w.successionBefore = w.succession
	for _, d := range w.disks {
		if n := len(d.log); n > d.synced {
			keep := d.synced + w.rng.IntN(n-d.synced+1)
			d.log = d.log[:keep:keep] // others hold the lost tail
			w.tell("slot %d keeps %d of %d entries, %d were synced", d.slot, len(d.log), n, d.synced)
		}
		d.synced = len(d.log) // it was read from the disk
		if d.condemned && w.chance(0.5) {
			d.condemned = false // notes are not synced; what this one was about is found again
		}
	}
}
