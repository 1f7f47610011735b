package roster

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Address is a member's host:port. The zero Address means "none".
type Address = netip.AddrPort

// ParseAddress parses an IP address with a port, for example 127.0.0.1:7400.
func ParseAddress(s string) (Address, error) {
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return Address{}, fmt.Errorf("invalid member address %q: must be IP:PORT, for example 127.0.0.1:7400: %w", s, err)
	}
	if a.Port() == 0 {
		return Address{}, fmt.Errorf("invalid member address %q: the port must not be 0", s)
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), nil
}

// ID identifies one process for ever. Another process can get the same address or the same pid
// later, but never the same address, pid and start time together.
type ID struct {
	Address Address
	PID     int
	// StartTime is when the process started, in clock ticks since boot, as in /proc/PID/stat.
	StartTime uint64
}

func (id ID) String() string { return fmt.Sprintf("%s (pid %d)", id.Address, id.PID) }

// Role is the role of a member.
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

// State is how far a member is ready to do its work.
type State uint8

// The states of a member. Only a leader is Serving.
const (
	// Starting: the process exists, but does not have the data yet.
	Starting State = iota
	// InSync: the member has the data, except for a small number of entries. It counts for
	// min_sync and can take over.
	InSync
	// Lagging: the member is alive, but too far behind to count.
	Lagging
	// Leaving: the member was told to leave. It never takes over.
	Leaving
	// Serving: the member is the leader.
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

// Member is one active process, as all members know it.
type Member struct {
	ID
	Role  Role
	State State
	// Slot is the number of the directory that the member owns, or 0 if it has none yet.
	Slot int
	// Plugin is the path of the Unix socket of the member's control service. A new leader
	// adopts the member through it.
	Plugin string
	// Version is the version of the build that the process runs.
	Version string
	// Busy says that the member is defragmenting its database. It stays in sync, but it moves
	// behind the others in the line of succession, because it could not serve before it is
	// done.
	Busy bool
	// OwesDefrag says that the copy in its slot still has to be defragmented. It was the
	// leader's copy when the other copies were defragmented.
	OwesDefrag bool
	// Protocol is the version of the control service that was agreed on when the process
	// started. 0 means unknown.
	Protocol int
	// ByHand says that an operator started the member with "join". It does not count among the
	// followers that the leader keeps.
	ByHand bool
}

// Roster is the list of all active members. (Epoch, Version) grows with every change: each new
// leader raises the epoch, and each change under the same leader raises the version.
type Roster struct {
	Epoch   uint64
	Version uint64
	Leader  Address
	// Client is the single address that clients use.
	Client string
	// Successor is the member that must take over next in a hand-over, whatever its address is.
	// It is zero unless the leader is handing over.
	Successor Address
	// Followers is how many followers the leader keeps, besides those that an operator started
	// by hand.
	Followers int
	// Members is sorted by address and includes the leader.
	Members []Member
}

// Newer reports whether r is newer than o.
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

// Sort sorts the members by address.
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

// Heir returns the follower that takes over next: the successor if one is named, otherwise the
// follower in sync with the lowest address.
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

// Line returns the order of succession. First comes the named successor if it is in sync; it
// may be busy, because the leader names a busy one when there is no other. Then come the other
// followers in sync, by address; busy ones come after the others. Last come the living
// followers without a complete copy, by address. A member that is leaving is not in the line.
func (r *Roster) Line() []Address {
	able := make([]Address, 0, len(r.Members))
	var busy, rest []Address
	for i := range r.Members {
		m := &r.Members[i]
		switch {
		case m.Address == r.Leader || m.State == Leaving:
		case m.State == InSync && m.Busy && m.Address != r.Successor:
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

// Rank returns the place of a in the line of succession; the first place is 0. An address that
// is not in the line comes after all others.
func (r *Roster) Rank(a Address) int {
	line := r.Line()
	if i := slices.Index(line, a); i >= 0 {
		return i
	}
	return len(line)
}

// FreeSlot returns the lowest slot number that no member holds and that taken does not report
// as taken.
func (r *Roster) FreeSlot(taken func(slot int) bool) int {
	for n := 1; ; n++ {
		used := slices.ContainsFunc(r.Members, func(m Member) bool { return m.Slot == n })
		if !used && !taken(n) {
			return n
		}
	}
}

// String returns one line for logs.
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

// PortRange is the range of ports for members, with both ends included.
type PortRange struct{ First, Last uint16 }

// Candidates returns the ports of the range in the order in which a new member tries them. The
// order begins after the highest port in use, goes to the end of the range and continues from
// its start. Ports in use are left out. Ports in used that are outside the range are ignored.
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
