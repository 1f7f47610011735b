package sim

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/roster"
)

// settle is longer than the longest delay that a fault leaves behind.
const settle = 4 * heartbeatTimeout

// lookEvery is how often the cluster is looked at while it recovers.
const lookEvery = 20 * time.Millisecond

// expectWhole: without faults the cluster becomes whole, and stays so.
func (w *world) expectWhole() {
	deadline := w.now + w.cfg.Bound
	missing := "not looked at yet"
	w.runUntil(w.now+settle, nil)
	for w.violation == nil && missing != "" {
		if w.now >= deadline {
			w.fail("not whole after %s without faults: %s", w.cfg.Bound, missing)
			return
		}
		w.runUntil(w.now+lookEvery, nil)
		missing = w.missing()
	}
	if w.violation != nil {
		return
	}
	w.tell("the cluster is whole")
	if !w.progresses() {
		w.fail("a write to a whole cluster is not acknowledged")
		return
	}
	leader, killed := w.leader(), w.oracle.killedByCore
	w.operator.quiet = true // heartbeats alone have to do
	w.runUntil(w.now+4*heartbeatTimeout, nil)
	w.operator.quiet = false
	if w.violation != nil {
		return
	}
	if m := w.missing(); m != "" || w.leader() != leader || w.oracle.killedByCore != killed {
		w.fail("the cluster was whole and did not stay so: leader %s, then %s; %d killed since; %s", leader, w.leader(), w.oracle.killedByCore-killed, m)
	}
	w.oracle.answersIn(leader)
}

// progresses: a new write is acknowledged.
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

// missing says what a whole cluster has and this one has not.
func (w *world) missing() string {
	leader := w.leader()
	switch {
	case leader == nil:
		return "nobody leads; " + w.roles()
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
		case q == leader:
			continue
		case m.State != roster.InSync:
			return fmt.Sprintf("%s is %s", q, m.State)
		}
		if !m.ByHand {
			inSync++
		}
	}
	if inSync != w.operator.followers {
		return fmt.Sprintf("%d followers in sync instead of %d; %s", inSync, w.operator.followers, w.roles())
	}
	for _, q := range w.alive() {
		m, ok := r.Find(q.id.Address)
		if !ok || m.ID != q.id {
			return fmt.Sprintf("%s is alive and nobody's; %s", q, w.roles())
		}
		if q.core == nil || !same(r, q.core.Roster()) {
			return fmt.Sprintf("%s has another roster than the leader", q)
		}
		if q.disk == nil || q.disk.owner != q || q.disk.slot != m.Slot {
			return fmt.Sprintf("%s does not own the slot %d that the roster says", q, m.Slot)
		}
	}
	want, got := naiveHeir(r), "nobody"
	if a, ok := r.Heir(); ok {
		got = a.String()
	}
	if want != got {
		w.fail("the heir is %s and should be %s", got, want)
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

func same(a, b *roster.Roster) bool {
	if a.Epoch != b.Epoch || a.Version != b.Version || a.Leader != b.Leader || len(a.Members) != len(b.Members) {
		return false
	}
	for i := range a.Members {
		if a.Members[i] != b.Members[i] {
			return false
		}
	}
	return true
}

// naiveHeir reads addresses as text: the lowest host, then the lowest number
// after the colon, among the followers in sync.
func naiveHeir(r *roster.Roster) string {
	best, bestKey := "nobody", ""
	for _, m := range r.Members {
		if m.Address == r.Leader || m.State != roster.InSync {
			continue
		}
		text := m.Address.String()
		host, port, _ := strings.Cut(text, ":")
		n, _ := strconv.Atoi(port)
		key := ""
		for _, part := range strings.Split(host, ".") {
			b, _ := strconv.Atoi(part)
			key += fmt.Sprintf("%03d.", b)
		}
		key += fmt.Sprintf("%05d", n)
		if bestKey == "" || key < bestKey {
			best, bestKey = text, key
		}
	}
	return best
}

// expectBrokenEnd: a leader that dies while it stops the cluster leaves nobody
// behind that is half in and half out.
func (w *world) expectBrokenEnd() {
	leader := w.leader()
	leader.post(core.StopRequested{Reason: "asked to"})
	w.runUntil(w.now+w.between(0, 15*time.Millisecond), nil)
	w.kill(leader, "SIGKILL in the middle of a stop")
	w.expectWhole()
}

// expectOrderlyEnd: a stop ends every process, and nothing is lost by it.
func (w *world) expectOrderlyEnd() {
	w.operator.done = true
	w.leader().post(core.StopRequested{Reason: "asked to"})
	if !w.runUntil(w.now+5*stopTimeout, func() bool { return len(w.alive()) == 0 }) && w.violation == nil {
		w.fail("after an orderly end there are: %s", w.roles())
	}
	if w.violation != nil {
		return
	}
	w.operator.done = false
	w.runUntil(w.now+time.Second, func() bool { return w.leader() != nil })
	if w.leader() == nil && w.violation == nil {
		w.fail("the cluster does not start again")
	}
}
