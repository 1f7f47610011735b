package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

// settle is longer than the longest delay that a fault leaves behind.
const settle = 4 * heartbeatTimeout

// lookEvery is the interval of checks while the cluster recovers.
const lookEvery = 20 * time.Millisecond

// expectRecovery fails the run unless the cluster becomes healthy without faults, and stays so.
func (w *world) expectRecovery() {
	began, steps := w.now, w.stats.Steps
	missing := "not checked yet"
	w.runUntil(w.now+settle, nil)
	for w.violation == nil && missing != "" {
		if w.now-began >= w.cfg.Bound || w.stats.Steps-steps >= w.cfg.BoundSteps {
			w.fail("the cluster is not healthy after %s and %d steps without faults: %s", w.now-began, w.stats.Steps-steps, missing)
			return
		}
		w.runUntil(w.now+lookEvery, nil)
		missing = w.missing()
	}
	if w.violation != nil {
		return
	}
	w.tell("the cluster is healthy")
	w.stats.LongestRecovery = max(w.stats.LongestRecovery, w.now-began)
	w.stats.MostStepsToRecover = max(w.stats.MostStepsToRecover, w.stats.Steps-steps)
	if !w.progresses() {
		w.fail("a write to a healthy cluster was not acknowledged")
		return
	}
	leader, killed := w.leader(), w.oracle.killedByCore
	w.operator.quiet = true // without writes, only heartbeats
	w.runUntil(w.now+4*heartbeatTimeout, nil)
	w.operator.quiet = false
	if w.violation != nil {
		return
	}
	if m := w.missing(); m != "" || w.leader() != leader || w.oracle.killedByCore != killed {
		w.fail("the cluster did not stay healthy: leader %s, then %s; %d killed since; %s", leader, w.leader(), w.oracle.killedByCore-killed, m)
	}
	w.oracle.answersIn(leader)
}

// progresses reports whether a new write is acknowledged.
func (w *world) progresses() bool {
	p := w.leader()
	w.operator.quiet = true
	p.write()
	payload := w.writes
	ok := w.runUntil(w.now+10*heartbeatTimeout, func() bool {
		for i := len(w.oracle.answered) - 1; i >= 0; i-- {
			if w.oracle.answered[i].payload == payload {
				return true
			}
		}
		return false
	})
	w.operator.quiet = false
	return ok
}

// missing describes what a healthy cluster has and this one lacks. It is empty if nothing is
// missing.
func (w *world) missing() string {
	leader := w.leader()
	switch {
	case leader == nil:
		return "there is no leader; " + w.roles()
	case leader.stopped:
		return "the leader is stopped"
	}
	r := leader.core.Roster()
	inSync := 0
	for _, m := range r.Members {
		q := w.find(m.ID)
		switch {
		case q == nil || q.dead:
			return fmt.Sprintf("the roster holds %s, which is dead", m.ID)
		case q.stopped:
			return fmt.Sprintf("the roster holds %s, which is stopped", m.ID)
		case m.Busy:
			return fmt.Sprintf("%s defragments its database", q)
		case q.disk != nil && (q.disk.wrongKeys && (q != leader || inSyncFollowers(r) >= 2) || q.disk.condemned):
			return fmt.Sprintf("%s has a wrong copy", q)
		case q == leader:
			continue
		case m.State != roster.InSync:
			return fmt.Sprintf("%s is %s", q, m.State)
		}
		if !m.ByHand {
			inSync++
		}
	}
	if inSync != r.Followers {
		return fmt.Sprintf("%d followers in sync instead of %d; %s", inSync, r.Followers, w.roles())
	}
	if u := w.operator.unanswered(); u != "" {
		return u
	}
	if r.Successor.IsValid() {
		return fmt.Sprintf("the leader is about to hand over to %s", r.Successor)
	}
	for _, q := range w.alive() {
		m, ok := r.Find(q.id.Address)
		if !ok || m.ID != q.id {
			return fmt.Sprintf("%s is alive and not in the roster; %s", q, w.roles())
		}
		if q.core == nil || !sameRoster(r, q.core.Roster()) {
			return fmt.Sprintf("%s and the leader have different rosters", q)
		}
		if q.disk == nil || q.disk.owner != q || q.disk.slot != m.Slot {
			return fmt.Sprintf("%s does not own its slot %d in the roster", q, m.Slot)
		}
	}
	return ""
}

func (w *world) roles() string {
	var b strings.Builder
	for _, p := range w.alive() {
		role := "starting"
		if p.core != nil {
			role = p.core.Role().String()
		}
		if p.stopped {
			role += ", stopped"
		}
		fmt.Fprintf(&b, "%s %s; ", p, role)
	}
	return b.String()
}

// expectHeir kills the leader of a healthy cluster. The heir and no other process must inherit,
// and the takeover must restart no healthy process.
func (w *world) expectHeir() {
	leader := w.leader()
	heir := naiveHeir(leader.core.Roster())
	var siblings []*process
	for _, p := range w.living {
		if p != leader {
			siblings = append(siblings, p)
		}
	}
	w.tell("the leader of a healthy cluster is killed: %s must inherit", heir)
	w.kill(leader, "SIGKILL")
	w.expectRecovery()
	if w.violation != nil {
		return
	}
	if got := w.leader().id.Address.String(); heir != nobody && got != heir {
		w.fail("%s inherited, but the heir was %s", got, heir)
	}
	for _, p := range siblings {
		if p.dead {
			w.fail("%s was healthy, but died in the takeover", p)
		}
	}
}

// expectRecoveryFromBrokenStop kills the leader while it stops the cluster. The cluster must
// recover, without a member that still considers itself dismissed.
func (w *world) expectRecoveryFromBrokenStop() {
	leader := w.leader()
	leader.post(core.StopRequested{Reason: "asked to"})
	if w.chance(0.5) {
		w.runUntil(w.now+w.between(0, 15*time.Millisecond), nil)
	} else { // as soon as the followers are told to leave
		w.runUntil(w.now+stopTimeout, func() bool {
			return slices.ContainsFunc(leader.core.Roster().Members, func(m roster.Member) bool { return m.State == roster.Leaving })
		})
		w.runUntil(w.now+w.between(0, 500*time.Microsecond), nil)
	}
	w.count(LeaderKilledInStop)
	w.kill(leader, "SIGKILL during a stop")
	w.expectRecovery()
}

// expectOrderlyStop stops the cluster. Every process must end, and nothing may be lost.
func (w *world) expectOrderlyStop() {
	w.operator.done = true
	w.leader().post(core.StopRequested{Reason: "asked to"})
	if !w.runUntil(w.now+5*stopTimeout, func() bool { return len(w.alive()) == 0 }) && w.violation == nil {
		w.fail("processes are left after an orderly stop: %s", w.roles())
	}
	if w.violation != nil {
		return
	}
	w.operator.done = false
	w.runUntil(w.now+time.Second, func() bool { return w.leader() != nil })
	if w.leader() == nil && w.violation == nil {
		w.fail("the cluster did not start again")
	}
}
