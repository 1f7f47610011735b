package roster

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Address is a member's host:port. The zero Address means "none".
type Address = netip.AddrPort

// ParseAddress reads an IP literal with a port, for example 127.0.0.1:7400.
func ParseAddress(s string) (Address, error) {
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return Address{}, fmt.Errorf("member address %q: want IP:PORT, for example 127.0.0.1:7400: %w", s, err)
	}
	if a.Port() == 0 {
		return Address{}, fmt.Errorf("member address %q: port 0 names no member", s)
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), nil
}

// ID names one process for good: an address can pass to another process and a
// pid can be given out again, all three together cannot.
type ID struct {
	Address Address
	PID     int
	// StartTime is the process's start in clock ticks since boot, as in
	// /proc/PID/stat.
	StartTime uint64
}

func (id ID) String() string { return fmt.Sprintf("%s (pid %d)", id.Address, id.PID) }

// Role says what a member is.
type Role uint8

// The roles of a member.
const (
	Follower Role = iota
	Leader
)

func (r Role) String() string {
	if r == Leader {
		return "leader"
	}
	return "follower"
}

// State says how far a member is able to do its part.
type State uint8

// The states of a member. Only a leader is Serving.
const (
	// Starting: the process exists; it does not have the data yet.
	Starting State = iota
	// InSync: has the data up to a small window; counts for min_sync, can inherit.
	InSync
	// Lagging: alive, but too far behind to count.
	Lagging
	// Leaving: told to go; never inherits.
	Leaving
	// Serving: the leader.
	Serving
)

var stateNames = [...]string{"starting", "in_sync", "lagging", "leaving", "serving"}

func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Valid reports whether s is one of the defined states.
func (s State) Valid() bool { return int(s) < len(stateNames) }

// Member is one active process as every other member knows it.
type Member struct {
	ID
	Role  Role
	State State
	// Slot is the number of the directory that the member owns; 0 is none yet.
	Slot int
	// Plugin is the path of the Unix socket of the member's control service,
	// by which a new leader adopts it.
	Plugin string
	// Version is the build that the process runs.
	Version string
	// Busy: its database is being rewritten. It is in sync as before, and others
	// succeed before it: it could not serve until that is done.
	Busy bool
	// OwesDefrag: the copy in its slot was the leader's when the others were
	// defragmented.
	OwesDefrag bool
	// Protocol is the version of the control service that was agreed on when the process
	// was started; 0 is not known.
	Protocol int
	// ByHand is true for a member that an operator started with "join": it is
	// not counted among the followers that the leader has to keep.
	ByHand bool
}

// Roster is the list of all active members. (Epoch, Version) grows with every
// change: the epoch with each leadership, the version within one.
type Roster struct {
	Epoch   uint64
	Version uint64
	Leader  Address
	// Client is the one address that clients use.
	Client string
	// Successor is to inherit next on purpose, whatever its address sorts to;
	// zero unless the leader is about to hand over.
	Successor Address
	// Followers is how many followers the leader keeps, besides those by hand.
	Followers int
	// Members is sorted by address and holds the leader too.
	Members []Member
}

// Newer reports whether r supersedes o.
func (r *Roster) Newer(o *Roster) bool {
	if r.Epoch != o.Epoch {
		return r.Epoch > o.Epoch
	}
	return r.Version > o.Version
}

// Clone returns a copy that shares nothing with r.
func (r *Roster) Clone() *Roster {
	c := *r
	c.Members = slices.Clone(r.Members)
	return &c
}

// Sort puts the members into the order of their addresses.
func (r *Roster) Sort() {
	slices.SortFunc(r.Members, func(a, b Member) int { return a.Address.Compare(b.Address) })
}

// Find returns the member at an address.
func (r *Roster) Find(a Address) (Member, bool) {
	for i := range r.Members {
		if r.Members[i].Address == a {
			return r.Members[i], true
		}
	}
	return Member{}, false
}

// LeaderMember returns the leader's entry.
func (r *Roster) LeaderMember() (Member, bool) { return r.Find(r.Leader) }

// Heir returns the follower that succeeds next: the successor if one is named,
// else the lowest address among those in sync.
func (r *Roster) Heir() (Address, bool) {
	line := r.Line()
	if len(line) == 0 {
		return Address{}, false
	}
	if m, _ := r.Find(line[0]); m.State != InSync {
		return Address{}, false
	}
	return line[0], true
}

// Line returns the order of succession: the named successor if it is in sync,
// the followers in sync by address (those that are busy after the others), then
// those that are alive without a complete copy, by address. Who is leaving does
// not inherit.
func (r *Roster) Line() []Address {
	able := make([]Address, 0, len(r.Members))
	var busy, rest []Address
	for i := range r.Members {
		m := &r.Members[i]
		switch {
		case m.Address == r.Leader || m.State == Leaving:
		case m.State == InSync && m.Busy:
			busy = append(busy, m.Address)
		case m.State == InSync:
			able = append(able, m.Address)
		default:
			rest = append(rest, m.Address)
		}
	}
	byAddress := func(a, b Address) int { return a.Compare(b) }
	slices.SortFunc(able, func(a, b Address) int {
		switch r.Successor {
		case a:
			return -1
		case b:
			return 1
		}
		return byAddress(a, b)
	})
	slices.SortFunc(busy, byAddress)
	slices.SortFunc(rest, byAddress)
	return slices.Concat(able, busy, rest)
}

// Rank is a's place in the line of succession, 0 for the first. One that the
// roster does not know, or that leaves, comes after all others.
func (r *Roster) Rank(a Address) int {
	line := r.Line()
	if i := slices.Index(line, a); i >= 0 {
		return i
	}
	return len(line)
}

// FreeSlot is the lowest slot number that neither a member nor taken holds.
func (r *Roster) FreeSlot(taken func(slot int) bool) int {
	for n := 1; ; n++ {
		used := slices.ContainsFunc(r.Members, func(m Member) bool { return m.Slot == n })
		if !used && !taken(n) {
			return n
		}
	}
}

// String is a line for people and logs.
func (r *Roster) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "epoch %d.%d leader %s", r.Epoch, r.Version, r.Leader)
	if r.Successor.IsValid() {
		fmt.Fprintf(&b, " successor %s", r.Successor)
	}
	b.WriteString(":")
	for i := range r.Members {
		m := &r.Members[i]
		fmt.Fprintf(&b, " %s/%s", m.Address, m.State)
		if m.Busy {
			b.WriteString(",busy")
		}
	}
	return b.String()
}

// PortRange is the range of ports that members are given, both ends included.
type PortRange struct{ First, Last uint16 }

// Candidates returns the ports of the range in the order in which a new
// member tries them: from the one above the highest in use to the end of the
// range, then from its start. A port in use is left out. used may hold ports
// outside the range; they count for nothing.
func (p PortRange) Candidates(used []uint16) []uint16 {
	highest := int(p.First) - 1
	taken := make(map[uint16]bool, len(used))
	for _, u := range used {
		taken[u] = true
		if u >= p.First && u <= p.Last && int(u) > highest {
			highest = int(u)
		}
	}
	size := int(p.Last) - int(p.First) + 1
	out := make([]uint16, 0, max(size, 0))
	for i := range size {
		port := uint16(int(p.First) + (highest-int(p.First)+1+i)%size)
		if !taken[port] {
			out = append(out, port)
		}
	}
	return out
}
