package sim

import (
	"slices"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/roster"
)

// oracle knows what must be true, from what the world shows and from nothing
// that the core says about itself.
type oracle struct {
	w *world

	leaderEver *process // the last one that carried out Lead
	epoch      uint64   // of that
	// truth is what was committed, from index 1; nothing of it ever changes.
	truth []record
	// answered are the payloads whose clients got an answer, with their index.
	answered     []answer
	killedByCore int // since it was last looked at
	rosters      rosters
	lost         uint64       // the last epoch that began with a reported loss
	asked        map[int]bool // numbers of followers that somebody asked for
}

type answer struct{ payload, index uint64 }

// everyStep: never two leaders (one that is stopped is one); who leads holds the
// lock and is named; and every roster that anybody knows is one that was published.
func (o *oracle) everyStep() {
	w, n := o.w, 0
	for _, p := range w.living {
		if p.epoch != 0 {
			n++
			if w.lock.holder != p || w.succession == nil || w.succession.Leader != p.id {
				w.fail("%s leads, the lock is held by %v, and succession.json says %+v", p, w.lock.holder, w.succession)
			}
		}
		if p.core == nil {
			continue
		}
		if r := p.core.Roster(); r != p.seen {
			o.hears(p, r)
		}
	}
	if n > 1 {
		w.fail("%d processes lead", n)
	}
}

// leads: the process has the lock, its epoch is greater than any before, its log
// is durable, is the one that is named, and begins with everything answered.
func (o *oracle) leads(p *process) {
	w := o.w
	switch {
	case w.lock.holder != p:
		w.fail("%s leads and does not hold the lock", p)
	case p.epoch <= o.epoch:
		w.fail("%s leads epoch %d after epoch %d", p, p.epoch, o.epoch)
	case w.succession == nil || w.succession.Leader != p.id || w.succession.Slot != p.disk.slot || w.succession.Epoch != p.epoch:
		w.fail("%s leads epoch %d and succession.json says %+v", p, p.epoch, w.succession)
	case p.committed < uint64(len(o.truth)):
		w.fail("%s serves and has applied up to %d of the %d entries that were committed", p, p.committed, len(o.truth))
	case p.disk.condemned:
		w.fail("%s leads with the copy in slot %d, which is condemned", p, p.disk.slot)
	case p.disk.synced < len(p.disk.log):
		w.fail("%s leads with %d of %d entries synced", p, p.disk.synced, len(p.disk.log))
	}
	if o.leaderEver != nil && !o.leaderEver.dead {
		w.fail("%s leads while %s lives", p, o.leaderEver)
	}
	o.leaderEver, o.epoch = p, p.epoch
	if n := o.common(p.disk.log); n < len(o.truth) {
		w.fail("%s leads epoch %d without entry %d, which was committed", p, p.epoch, n+1)
		return
	}
	if p.losses > 0 {
		w.stats.Losses++
	}
	if p.committed > uint64(len(o.truth)) {
		o.truth = append(o.truth, p.disk.log[len(o.truth):p.committed]...)
	}
	seen := make(map[uint64]bool, len(p.disk.log))
	for i, r := range p.disk.log {
		if r.payload != 0 && seen[r.payload] {
			w.fail("%s leads with payload %d twice, the second at %d", p, r.payload, i+1)
		}
		seen[r.payload] = true
	}
	o.answersIn(p)
}

// answersIn: every answered write is in its place.
func (o *oracle) answersIn(p *process) {
	for _, a := range o.answered {
		if a.index > uint64(len(p.disk.log)) || p.disk.log[a.index-1].payload != a.payload {
			o.w.fail("payload %d was acknowledged at %d and is not there in the log of %s", a.payload, a.index, p)
			return
		}
	}
}

// common is the length of the beginning that a log shares with the truth.
func (o *oracle) common(log []record) int {
	n := 0
	for n < len(log) && n < len(o.truth) && log[n] == o.truth[n] {
		n++
	}
	return n
}

// lose forgets what a leader has reported as possibly lost.
func (o *oracle) lose(n int) {
	o.truth = o.truth[:n:n]
	kept := o.answered[:0]
	for _, a := range o.answered {
		if a.index <= uint64(n) {
			kept = append(kept, a)
		}
	}
	o.answered = kept
}

// acknowledges: what the leader commits is on its disk, and in the logs of as
// many followers as it has to be.
func (o *oracle) acknowledges(p *process, index uint64) {
	w := o.w
	if index > uint64(p.disk.synced) {
		w.fail("%s commits %d with %d entries on its disk", p, index, p.disk.synced)
		return
	}
	if index <= p.committed {
		w.fail("%s commits %d after %d", p, index, p.committed)
		return
	}
	for i := p.committed; i < index; i++ {
		r := p.disk.log[i]
		if r.epoch == p.epoch && r.payload != 0 {
			o.answered = append(o.answered, answer{r.payload, i + 1})
			w.stats.Acknowledged++
		}
	}
	if o.common(p.disk.log[:index]) < min(int(index), len(o.truth)) {
		w.fail("%s commits %d, and its log is another than what was committed before", p, index)
		return
	}
	if int(index) > len(o.truth) {
		o.truth = append(o.truth, p.disk.log[len(o.truth):index]...)
	}
	if p.disk.log[index-1].epoch == p.epoch && p.disk.log[index-1].payload != 0 {
		o.enoughCopies(p, index)
	}
}

// enoughCopies is the commit rule told naively: count the logs.
func (o *oracle) enoughCopies(p *process, index uint64) {
	copies, inSync := 0, 0
	for _, m := range p.published.Members {
		if m.State != roster.InSync {
			continue
		}
		inSync++
		for _, d := range o.w.disks {
			if d.slot == m.Slot && d.at(index) == p.disk.at(index) {
				copies++
			}
		}
	}
	if need := min(o.w.operator.minSync, inSync); copies < need {
		o.w.fail("%s commits %d with %d copies beside its own, %d followers are in sync, min_sync is %d", p, index, copies, inSync, o.w.operator.minSync)
	}
}

// applies: a follower applies nothing but what was committed.
func (o *oracle) applies(p *process, index uint64) {
	if p.core.Roster().Epoch < o.lost {
		return // it has not heard yet that this was lost, and gets another copy
	}
	if index > uint64(len(p.disk.log)) {
		o.w.fail("%s applies %d, its log ends at %d", p, index, len(p.disk.log))
		return
	}
	if index > uint64(len(o.truth)) {
		o.w.fail("%s applies %d, committed is %d", p, index, len(o.truth))
		return
	}
	if n := o.common(p.disk.log[:index]); n < int(index) {
		o.w.fail("%s applies entry %d, which is another than what was committed there", p, n+1)
	}
}

// names: only the holder of the lock replaces succession.json, and the log that
// it names is whole.
func (o *oracle) names(p *process, s core.Succession) {
	w := o.w
	if w.lock.holder != p {
		w.fail("%s replaces succession.json without the lock", p)
	}
	if w.succession != nil && s.Epoch <= w.succession.Epoch && s != *w.succession { // it may try again
		w.fail("%s names epoch %d after epoch %d", p, s.Epoch, w.succession.Epoch)
	}
	if p.losses > 0 && !w.faults.brokeOnce {
		w.fail("%s reports a possible loss, and no slot was ever damaged", p)
	}
	n := o.common(p.disk.log)
	switch {
	case n == len(o.truth):
	case p.losses == 0:
		w.fail("%s names slot %d, which lacks entry %d, which was committed; no loss was reported", p, s.Slot, n+1)
	default:
		w.tell("the reported loss: %d of %d committed entries", len(o.truth)-n, len(o.truth))
		o.lose(n)
		o.lost = s.Epoch
	}
}

// exited: a member ends itself only for the reasons that are known.
func (o *oracle) exited(p *process, e core.Exit) {
	w := o.w
	switch e.Code {
	case core.ExitDone, core.ExitLocked, core.ExitUnreachable:
		if p.epoch != 0 && p.core.Roster().Successor.IsValid() {
			o.handedOver(p)
		}
		return
	case core.ExitCorrupt:
		if slices.ContainsFunc(w.disks, func(d *disk) bool { return d.owner != nil && d.owner != p && d.usable(d.owner) }) {
			return // a living member is to lead
		}
		if !slices.ContainsFunc(w.disks, func(d *disk) bool { return d.usable(p) }) {
			if !slices.ContainsFunc(w.disks, func(d *disk) bool { return d.usable(d.owner) }) {
				w.after(0, w.startEmpty) // no copy is left: the operator's decision
			}
			return // or a living member owns the only one: it is to inherit
		}
	}
	w.fail("%s exits with %d: %s", p, e.Code, e.Reason)
}

// startEmpty is what an operator does when all data is gone.
func (w *world) startEmpty() {
	w.tell("the data directory is moved away")
	for _, p := range w.alive() {
		w.kill(p, "killed by the operator")
	}
	w.disks, w.succession = nil, nil
	w.oracle.lose(0)
	w.oracle.epoch, w.oracle.lost, w.oracle.rosters = 0, 0, rosters{}
}
