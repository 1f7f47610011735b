package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/dynast-io/dynast/shared/rules/roster"
)

// edition identifies one state of the roster.
type edition struct{ epoch, version uint64 }

// rosters holds all published rosters, by edition.
type rosters map[edition]*roster.Roster

// hears checks a roster that a process has received.
func (o *oracle) hears(p *process, r *roster.Roster) {
	w := o.w
	if old := p.seen; old != nil && (r.Epoch < old.Epoch || r.Epoch == old.Epoch && r.Version < old.Version) {
		w.fail("%s goes back from roster %d.%d to the older %d.%d", p, old.Epoch, old.Version, r.Epoch, r.Version)
	}
	p.seen = r
	if r.Version == 0 {
		return // not published: it comes from succession.json, or is the zero roster before the first one
	}
	if r.Epoch > o.epoch {
		w.fail("%s knows a roster of epoch %d, but the last epoch with a leader is %d", p, r.Epoch, o.epoch)
	}
	at := edition{r.Epoch, r.Version}
	switch same, known := o.rosters[at]; {
	case !known:
		o.rosters[at] = r
		o.published(p, r)
	case same != r && !sameRoster(same, r):
		w.fail("%s has a roster %d.%d that differs from the published one", p, r.Epoch, r.Version)
	}
}

// published checks a new edition: one leader, no address and no slot twice, and the line of
// succession as the rule says.
func (o *oracle) published(p *process, r *roster.Roster) {
	w := o.w
	leaders := 0
	for i, m := range r.Members {
		if m.Role == roster.Leader {
			leaders++
		}
		for _, n := range r.Members[:i] {
			if m.Address == n.Address || m.Slot == n.Slot {
				w.fail("the roster of %s has %s in slot %d and %s in slot %d", p, m.ID, m.Slot, n.ID, n.Slot)
			}
		}
	}
	if before := o.rosters[edition{r.Epoch, r.Version - 1}]; before != nil && before.Successor == r.Successor && r.Successor.IsValid() {
		was, _ := before.Find(r.Successor)
		if is, _ := r.Find(r.Successor); is.Busy && !was.Busy {
			w.fail("%s makes its named successor %s busy", p, is.ID)
		}
	}
	if !o.asked[r.Followers] {
		w.fail("the roster of %s wants %d followers, which was never requested", p, r.Followers)
	}
	if leaders != 1 || r.Leader != o.leaderEver.id.Address {
		w.fail("the roster of epoch %d has %d leaders and names %s, but %s leads that epoch", r.Epoch, leaders, r.Leader, o.leaderEver)
	}
	if want, got := naiveLine(r), fmt.Sprint(r.Line()); fmt.Sprint(want) != got {
		w.fail("the line of succession of [%s] is %s, want %s", r, got, want)
	}
	heir := nobody
	if a, ok := r.Heir(); ok {
		heir = a.String()
	}
	if want := naiveHeir(r); heir != want {
		w.fail("the heir in [%s] is %s, want %s", r, heir, want)
	}
}

const nobody = "nobody"

// key converts an address into a text that sorts as the rule says: by the parts of the host as
// numbers, then by the port as a number.
func key(address string) string {
	host, port, _ := strings.Cut(address, ":")
	var b strings.Builder
	for _, part := range append(strings.Split(host, "."), port) {
		n, _ := strconv.Atoi(part)
		fmt.Fprintf(&b, "%05d.", n)
	}
	return b.String()
}

// naiveLine computes the line of succession from addresses as text: first a named successor that
// is in sync; then the members in sync; then those in sync that are busy; then those without a
// complete copy. Each group is ordered by address.
func naiveLine(r *roster.Roster) []string {
	type one struct{ sort, address string }
	var line []one
	for _, m := range r.Members {
		text := m.Address.String()
		switch {
		case m.Address == r.Leader || m.State == roster.Leaving:
		case m.State == roster.InSync && text == r.Successor.String():
			line = append(line, one{"a", text})
		case m.State == roster.InSync && !m.Busy:
			line = append(line, one{"b" + key(text), text})
		case m.State == roster.InSync:
			line = append(line, one{"c" + key(text), text})
		default:
			line = append(line, one{"d" + key(text), text})
		}
	}
	slices.SortFunc(line, func(a, b one) int { return strings.Compare(a.sort, b.sort) })
	addresses := make([]string, len(line))
	for i, l := range line {
		addresses[i] = l.address
	}
	return addresses
}

// naiveHeir returns the first in line, if it is in sync.
func naiveHeir(r *roster.Roster) string {
	line := naiveLine(r)
	for _, m := range r.Members {
		if len(line) > 0 && m.Address.String() == line[0] && m.State == roster.InSync {
			return line[0]
		}
	}
	return nobody
}

func sameRoster(a, b *roster.Roster) bool {
	return a.Epoch == b.Epoch && a.Version == b.Version && a.Leader == b.Leader && a.Client == b.Client &&
		a.Successor == b.Successor && a.Followers == b.Followers && slices.Equal(a.Members, b.Members)
}
