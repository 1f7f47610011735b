package sim

import (
	"slices"

	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

// oracle holds what must be true. It looks only at the simulated world, never at what the core
// says about itself.
type oracle struct {
	w *world

	leaderEver *process // the last process that carried out Lead
	epoch      uint64   // the epoch of leaderEver
	// truth is everything that was committed, from index 1. It never changes.
	truth []record
	// answered are the payloads with an acknowledgement, with their index.
	answered     []answer
	killedByCore int // since the last check
	rosters      rosters
	lost         uint64              // the last epoch that began with a reported loss
	asked        map[int]bool        // numbers of followers that were requested
	begun        map[uint64]*process // the process that began each epoch
}

type answer struct{ payload, index uint64 }

// everyStep checks after every step: there are never two leaders, including stopped ones; the
// leader holds the lock and is named; every known roster was published.
func (o *oracle) everyStep() {
	w, n := o.w, 0
	for _, p := range w.living {
		if p.epoch != 0 {
			n++
			if w.lock.holder != p || w.succession == nil || w.succession.Leader != p.id {
				w.fail("%s leads, but the lock is held by %v, and succession.json says %+v", p, w.lock.holder, w.succession)
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

// leads checks a new leader. It holds the lock, and its epoch is greater than any before. Its log
// is durable, is the named one, and begins with everything that was acknowledged.
func (o *oracle) leads(p *process) {
	w := o.w
	switch {
	case w.lock.holder != p:
		w.fail("%s leads but does not hold the lock", p)
	case p.epoch <= o.epoch:
		w.fail("%s leads epoch %d after epoch %d", p, p.epoch, o.epoch)
	case w.succession == nil || w.succession.Leader != p.id || w.succession.Slot != p.disk.slot || w.succession.Epoch != p.epoch:
		w.fail("%s leads epoch %d, but succession.json says %+v", p, p.epoch, w.succession)
	case p.committed < uint64(len(o.truth)):
		w.fail("%s serves, but has applied only %d of %d committed entries", p, p.committed, len(o.truth))
	case p.disk.condemned:
		w.fail("%s leads with the condemned copy in slot %d", p, p.disk.slot)
	case p.disk.synced < len(p.disk.log):
		w.fail("%s leads with %d of %d entries synced", p, p.disk.synced, len(p.disk.log))
	}
	if o.leaderEver != nil && !o.leaderEver.dead {
		w.fail("%s leads although the previous leader %s is alive", p, o.leaderEver)
	}
	o.leaderEver, o.epoch = p, p.epoch
	if n := o.common(p.disk.log); n < len(o.truth) {
		w.fail("%s leads epoch %d without the committed entry %d", p, p.epoch, n+1)
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
			w.fail("%s leads with payload %d twice in its log, the second time at %d", p, r.payload, i+1)
		}
		seen[r.payload] = true
	}
	o.answersIn(p)
}

// answersIn checks that every acknowledged write is in its place.
func (o *oracle) answersIn(p *process) {
	for _, a := range o.answered {
		if a.index > uint64(len(p.disk.log)) || p.disk.log[a.index-1].payload != a.payload {
			o.w.fail("payload %d was acknowledged at %d, but is not there in the log of %s", a.payload, a.index, p)
			return
		}
	}
}

// common returns the number of entries at the start of a log that agree with the truth.
func (o *oracle) common(log []record) int {
	n := 0
	for n < len(log) && n < len(o.truth) && log[n] == o.truth[n] {
		n++
	}
	return n
}

// lose forgets everything after the first n entries, which a leader has reported as possibly
// lost.
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

// acknowledges checks a commit of the leader. The entries must be on its disk, and in the logs of
// enough followers.
func (o *oracle) acknowledges(p *process, index uint64) {
	w := o.w
	if index > uint64(p.disk.synced) {
		w.fail("%s commits %d, but only %d entries are on its disk", p, index, p.disk.synced)
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
		w.fail("%s commits %d, but its log differs from what was committed before", p, index)
		return
	}
	if int(index) > len(o.truth) {
		o.truth = append(o.truth, p.disk.log[len(o.truth):index]...)
	}
	if p.disk.log[index-1].epoch == p.epoch && p.disk.log[index-1].payload != 0 {
		o.enoughCopies(p, index)
	}
}

// enoughCopies is a simple form of the commit rule: it counts logs. The log of a dead follower
// counts as it was at its death, because the leader cannot know yet that a fault has destroyed it
// since.
func (o *oracle) enoughCopies(p *process, index uint64) {
	copies, inSync := 0, 0
	for _, m := range p.published.Members {
		if m.State != roster.InSync {
			continue
		}
		inSync++
		if q := o.w.find(m.ID); q != nil && q.dead && q.leftWith.Index >= index && p.disk.holds(q.leftWith) {
			copies++
			continue
		}
		for _, d := range o.w.disks {
			if d.slot == m.Slot && d.at(index) == p.disk.at(index) {
				copies++
			}
		}
	}
	if need := min(o.w.operator.minSync, inSync); copies < need {
		o.w.fail("%s commits %d with only %d copies besides its own; %d followers are in sync, min_sync is %d", p, index, copies, inSync, o.w.operator.minSync)
	}
}

// applies checks that a follower applies only committed entries.
func (o *oracle) applies(p *process, index uint64) {
	if p.core.Roster().Epoch < o.lost || p.epoch == 0 && p.greeted < o.lost {
		return // it does not know about the loss yet, and gets another copy after its hello
	}
	if index > uint64(len(p.disk.log)) {
		o.w.fail("%s applies %d, but its log ends at %d", p, index, len(p.disk.log))
		return
	}
	if index > uint64(len(o.truth)) {
		o.w.fail("%s applies %d, but only %d entries are committed", p, index, len(o.truth))
		return
	}
	if n := o.common(p.disk.log[:index]); n < int(index) {
		o.w.fail("%s applies entry %d, which differs from the committed entry", p, n+1)
	}
}

// claims checks that only the holder of the lock claims an epoch.
func (o *oracle) claims(p *process, c core.Claims) {
	if o.w.lock.holder != p {
		o.w.fail("%s claims epoch %d without the lock", p, c.Epoch)
	}
}

// begins checks that only one process begins an epoch, after it has claimed the epoch durably.
func (o *oracle) begins(p *process, epoch uint64) {
	w := o.w
	if q := o.begun[epoch]; q != nil && q != p {
		w.fail("%s begins epoch %d, but %s began it before", p, epoch, q)
	}
	o.begun[epoch] = p
	if w.claims == nil || w.claims.Epoch != epoch || w.claimsBefore != w.claims {
		w.fail("%s begins epoch %d, but the durable claims.json says %+v", p, epoch, w.claimsBefore)
	}
}

// names checks that only the holder of the lock replaces succession.json, and that the named log
// is complete.
func (o *oracle) names(p *process, s core.Succession) {
	w := o.w
	if w.lock.holder != p {
		w.fail("%s replaces succession.json without the lock", p)
	}
	if w.succession != nil && s.Epoch <= w.succession.Epoch && s != *w.succession { // it may repeat a failed attempt
		w.fail("%s names epoch %d after epoch %d", p, s.Epoch, w.succession.Epoch)
	}
	if p.losses > 0 && !w.faults.brokeOnce {
		w.fail("%s reports a possible loss, but no slot was ever damaged", p)
	}
	n := o.common(p.disk.log)
	switch {
	case n == len(o.truth):
	case p.losses == 0:
		w.fail("%s names slot %d without the committed entry %d, and reported no loss", p, s.Slot, n+1)
	default:
		w.tell("the reported loss: %d of %d committed entries", len(o.truth)-n, len(o.truth))
		o.lose(n)
		o.lost = s.Epoch
	}
}

// exited checks that a member exits only for known reasons.
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
			return // a living member must lead
		}
		if !slices.ContainsFunc(w.disks, func(d *disk) bool { return d.usable(p) }) {
			if !slices.ContainsFunc(w.disks, func(d *disk) bool { return d.usable(d.owner) }) {
				w.after(0, w.startEmpty) // no copy is left: an operator must decide
			}
			return // or a living member owns the only copy and must inherit
		}
	}
	w.fail("%s exits for an unknown reason, code %d: %s", p, e.Code, e.Reason)
}

// startEmpty is the operator's action when all data is lost.
func (w *world) startEmpty() {
	w.tell("an operator moves the data directory away")
	for _, p := range w.alive() {
		w.kill(p, "killed by the operator")
	}
	w.disks, w.succession, w.successionBefore, w.claims, w.claimsBefore = nil, nil, nil, nil, nil
	w.successionDamaged, w.claimsDamaged = [2]bool{}, [2]bool{}
	w.oracle.begun = map[uint64]*process{}
	w.oracle.lose(0)
	w.oracle.epoch, w.oracle.lost, w.oracle.rosters = 0, 0, rosters{}
}
