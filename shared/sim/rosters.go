package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/dynast-io/dynast/shared/roster"
)

// edition names one state of the roster.
type edition struct{ epoch, version uint64 }

// rosters are all that were ever published, by edition.
type rosters map[edition]*roster.Roster

// hears looks at the roster that a process has come to know.
func (o *oracle) hears(p *process, r *roster.Roster) {
	w := o.w
	if old := p.seen; old != nil && (r.Epoch < old.Epoch || r.Epoch == old.Epoch && r.Version < old.Version) {
		w.fail("%s goes back from roster %d.%d to %d.%d", p, old.Epoch, old.Version, r.Epoch, r.Version)
	}
	p.seen = r
	if r.Version == 0 {
		return // not published: what succession.json told, or the zero roster before the first
	}
	if r.Epoch > o.epoch {
		w.fail("%s knows a roster of epoch %d, the last that anybody led is %d", p, r.Epoch, o.epoch)
	}
	at := edition{r.Epoch, r.Version}
	switch same, known := o.rosters[at]; {
	case !known:
		o.rosters[at] = r
		o.published(p, r)
	case same != r && !sameRoster(same, r):
		w.fail("%s has another roster %d.%d than others", p, r.Epoch, r.Version)
	}
}

// published judges a new edition: one leader, nobody and no slot twice, and the
// line of succession as the rule says.
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
	if !o.asked[r.Followers] {
		w.fail("the roster of %s keeps %d followers, which nobody asked for", p, r.Followers)
	}
	if leaders != 1 || r.Leader != o.leaderEver.id.Address {
		w.fail("the roster of epoch %d has %d leaders and names %s, that epoch is led by %s", r.Epoch, leaders, r.Leader, o.leaderEver)
	}
	if want, got := naiveLine(r), fmt.Sprint(r.Line()); fmt.Sprint(want) != got {
		w.fail("the line of succession of [%s] is %s and should be %s", r, got, want)
	}
	heir := nobody
	if a, ok := r.Heir(); ok {
		heir = a.String()
	}
	if want := naiveHeir(r); heir != want {
		w.fail("the heir in [%s] is %s and should be %s", r, heir, want)
	}
}

const nobody = "nobody"

// key makes text of an address that sorts as the rule says: by the parts of the
// host as numbers, then by the port as a number.
func key(address string) string {
	host, port, _ := strings.Cut(address, ":")
	var b strings.Builder
	for _, part := range append(strings.Split(host, "."), port) {
		n, _ := strconv.Atoi(part)
		fmt.Fprintf(&b, "%05d.", n)
	}
	return b.String()
}

// naiveLine reads addresses as text: a named successor that is in sync, those in
// sync, those of them that are busy, then those that are there without a complete
// copy, each by address.
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

// naiveHeir is the first in line, if it is in sync.
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
