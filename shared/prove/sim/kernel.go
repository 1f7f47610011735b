package sim

import (
	"slices"
	"time"

	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

// lock is cluster.lock. The death of its holder releases it, sometimes a moment later, if a child
// of the holder has not called exec yet.
type lock struct {
	holder *process
	until  time.Duration // a dead holder's child keeps the lock until then
}

// tryLock takes the lock if no process holds it.
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

// start creates a process. boot gives its core the first event.
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

// alive returns a copy of the list of living processes, so that the caller can kill some of them.
func (w *world) alive() []*process { return slices.Clone(w.living) }

// kill is SIGKILL or the exit of a process. Its current work is left unfinished, its locks are
// released, its pidfds fire, and its sockets are closed.
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
		p.leftWith = p.disk.last()
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

// stop is SIGSTOP: nothing in the process runs. The kernel keeps its locks and its sockets.
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
	w.tell("%s continues", p)
	p.stopped = false
	late, d := p.deferred, time.Duration(0)
	p.deferred = nil
	for _, do := range late { // in their order, because a stream delivers in order
		d += w.between(0, 5*time.Microsecond)
		p.after(d, do)
	}
	p.wakeUp()
}

// suspend stops the whole host for a while: nothing happens, and all clocks jump.
func (w *world) suspend() {
	d := w.between(0, 10*heartbeatTimeout)
	w.tell("the host is suspended for %s", d.Round(time.Microsecond))
	w.count(HostSuspended)
	w.now += d
}

// losePower kills all processes at once. Of unsynced entries, any number at the end may be lost.
func (w *world) losePower() {
	w.tell("the host loses power")
	w.count(PowerLost)
	for _, p := range w.alive() {
		w.kill(p, "power loss")
	}
	w.lock.until = w.now
	w.boot++
	if (w.successionBefore != w.succession || w.successionDamaged[0] != w.successionDamaged[1]) && w.chance(0.5) {
		w.tell("succession.json is the previous one")
		w.succession, w.successionDamaged[0] = w.successionBefore, w.successionDamaged[1]
	}
	w.successionBefore, w.successionDamaged[1] = w.succession, w.successionDamaged[0]
	if w.claimsBefore != w.claims && w.chance(0.5) {
		w.tell("claims.json is the previous one")
		w.claims, w.claimsDamaged[0] = w.claimsBefore, w.claimsDamaged[1]
	}
	w.claimsBefore, w.claimsDamaged[1] = w.claims, w.claimsDamaged[0]
	for _, d := range w.disks {
		if n := len(d.log); n > d.synced {
			keep := d.synced + w.rng.IntN(n-d.synced+1)
			d.log = d.log[:keep:keep] // other slices may share the lost end
			w.tell("slot %d keeps %d of %d entries, %d were synced", d.slot, len(d.log), n, d.synced)
		}
		d.synced = len(d.log) // it was read from the disk
		if d.condemned && w.chance(0.5) {
			d.condemned = false // notes are not synced; a comparison finds the wrong key again
		}
	}
}
