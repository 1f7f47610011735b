package roster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/quick"
)

func addr(t testing.TB, s string) Address {
	t.Helper()
	a, err := ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestParseAddress(t *testing.T) {
	for _, bad := range []string{"", "127.0.0.1", "localhost:7400", "127.0.0.1:0", "127.0.0.1:70000", ":7400", "1.2.3.4:-1"} {
		if a, err := ParseAddress(bad); err == nil {
			t.Errorf("%q was read as %s", bad, a)
		} else if !strings.Contains(err.Error(), strconv.Quote(bad)) {
			t.Errorf("the error for %q does not name it: %v", bad, err)
		} else if bad == "127.0.0.1" && errors.Unwrap(err) == nil {
			t.Errorf("the error for %q hides its cause", bad)
		}
	}
	if a := addr(t, "[::ffff:127.0.0.1]:7400"); a != addr(t, "127.0.0.1:7400") {
		t.Errorf("an IPv4 address written as IPv6 was not converted: %s", a)
	}
}

// number converts an IPv4 address from text to a number in the simplest way.
func number(s string) uint64 {
	host, port, _ := strings.Cut(s, ":")
	var n uint64
	for _, part := range strings.Split(host, ".") {
		b, _ := strconv.Atoi(part)
		n = n*256 + uint64(b)
	}
	p, _ := strconv.Atoi(port)
	return n*65536 + uint64(p)
}

func TestOrderAgainstNaive(t *testing.T) {
	for _, c := range [][2]string{
		{"127.0.0.1:9999", "127.0.0.1:10000"}, {"127.0.0.9:1", "127.0.0.10:1"}, {"127.0.0.1:65535", "127.0.0.2:1"},
	} {
		if addr(t, c[0]).Compare(addr(t, c[1])) >= 0 {
			t.Errorf("%s does not come before %s", c[0], c[1])
		}
	}
	same := func(a, b [4]byte, p, q uint16) bool {
		x, y := netip.AddrPortFrom(netip.AddrFrom4(a), p), netip.AddrPortFrom(netip.AddrFrom4(b), q)
		nx, ny := number(x.String()), number(y.String())
		want := 0
		if nx < ny {
			want = -1
		} else if nx > ny {
			want = 1
		}
		return x.Compare(y) == want
	}
	if err := quick.Check(same, &quick.Config{MaxCount: 2000}); err != nil {
		t.Error(err)
	}
}

// randomRoster returns a roster with up to eight members in any state, one of them the leader.
func randomRoster(rng *rand.Rand) *Roster {
	r := &Roster{Epoch: 1}
	for i := range 1 + rng.IntN(8) {
		m := Member{
			ID:    ID{Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(1 + rng.IntN(12))}), uint16(9990+20*i+rng.IntN(20))), PID: i},
			State: State(rng.IntN(int(Serving))), Slot: i + 1,
		}
		r.Members = append(r.Members, m)
	}
	i := rng.IntN(len(r.Members))
	r.Members[i].State, r.Members[i].Role = Serving, Leader
	r.Leader = r.Members[i].Address
	return r
}

func TestHeirAndLineAgainstNaive(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		r := randomRoster(rng)
		var best *Member
		for i := range r.Members {
			m := &r.Members[i]
			if m.Role != Leader && m.State == InSync && (best == nil || number(m.Address.String()) < number(best.Address.String())) {
				best = m
			}
		}
		got, ok := r.Heir()
		if ok != (best != nil) || ok && got != best.Address {
			t.Fatalf("heir of %s is %s", r, got)
		}
		checkLine(t, r)
	}
}

// checkLine checks the line of succession: members that can succeed come first, by address; then
// the rest; no member twice.
func checkLine(t *testing.T, r *Roster) {
	t.Helper()
	line := r.Line()
	key := func(a Address) uint64 {
		m, ok := r.Find(a)
		if !ok || m.State == Leaving || m.Role == Leader {
			t.Fatalf("%s must not be in the line of %s", a, r)
		}
		n := number(a.String())
		if m.State != InSync {
			n += 1 << 60
		}
		return n
	}
	for i, a := range line {
		if r.Rank(a) != i {
			t.Fatalf("the rank of %s is %d, want %d", a, r.Rank(a), i)
		}
		if i > 0 && key(line[i-1]) >= key(a) {
			t.Fatalf("line of %s: %v", r, line)
		}
	}
	n := 0
	for _, m := range r.Members {
		if m.Role != Leader && m.State != Leaving {
			n++
		}
	}
	if n != len(line) {
		t.Fatalf("the line of %s is incomplete: %v", r, line)
	}
	if stranger := addr(t, "10.0.0.1:1"); r.Rank(stranger) != len(line) {
		t.Fatalf("the rank of an unknown address is %d, with %d in line", r.Rank(stranger), len(line))
	}
}

// naiveCandidates walks once around the range, from the port after the highest in use.
func naiveCandidates(p PortRange, used []uint16) []uint16 {
	start := int(p.First)
	for port := int(p.First); port <= int(p.Last); port++ {
		if slices.Contains(used, uint16(port)) {
			start = port + 1
		}
	}
	var out []uint16
	for port := start; port <= int(p.Last); port++ {
		if !slices.Contains(used, uint16(port)) {
			out = append(out, uint16(port))
		}
	}
	for port := int(p.First); port < start && port <= int(p.Last); port++ {
		if !slices.Contains(used, uint16(port)) {
			out = append(out, uint16(port))
		}
	}
	return out
}

func TestCandidatesAgainstNaive(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 5000 {
		first := uint16(rng.IntN(65536))
		p := PortRange{First: first, Last: uint16(min(65535, int(first)+rng.IntN(12)))}
		var used []uint16
		for range rng.IntN(14) {
			used = append(used, uint16(int(first)-2+rng.IntN(16)))
		}
		if got, want := p.Candidates(used), naiveCandidates(p, used); !slices.Equal(got, want) {
			t.Fatalf("%v with %v in use: %v, want %v", p, used, got, want)
		}
	}
	if got := (PortRange{First: 10, Last: 9}).Candidates(nil); len(got) != 0 {
		t.Errorf("an empty range has the ports %v", got)
	}
}

func TestNewer(t *testing.T) {
	order := []*Roster{{}, {Epoch: 1}, {Epoch: 1, Version: 9}, {Epoch: 2}, {Epoch: 2, Version: 1}}
	for i, a := range order {
		for j, b := range order {
			if a.Newer(b) != (i > j) {
				t.Errorf("%d.%d newer than %d.%d: %t", a.Epoch, a.Version, b.Epoch, b.Version, a.Newer(b))
			}
		}
	}
}

func TestFreeSlotAndClone(t *testing.T) {
	r := &Roster{Members: []Member{{Slot: 1}, {Slot: 3}}}
	if got := r.FreeSlot(func(n int) bool { return n == 2 }); got != 4 {
		t.Errorf("free slot %d, want 4", got)
	}
	c := r.Clone()
	c.Members[0].Slot = 9
	if r.Members[0].Slot != 1 {
		t.Error("a change of the clone changed the roster")
	}
}

func TestStateNames(t *testing.T) {
	for s := Starting; s <= Serving; s++ {
		if !s.Valid() || strings.Contains(s.String(), "(") {
			t.Errorf("state %d is called %s", uint8(s), s)
		}
	}
	if bad := Serving + 1; bad.Valid() || bad.String() != fmt.Sprintf("state(%d)", uint8(bad)) {
		t.Errorf("an unknown state is called %s", bad)
	}
}

func FuzzParseAddress(f *testing.F) {
	f.Add("127.0.0.1:7400")
	f.Add("[::1]:1")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			return
		}
		b, err := ParseAddress(a.String())
		if err != nil || a != b || a.Port() == 0 {
			t.Fatalf("%q became %s, and that %s (%v)", s, a, b, err)
		}
	})
}

func TestNamedSuccessorIsFirstEvenWhenBusy(t *testing.T) {
	a, b := netip.MustParseAddrPort("127.0.0.1:7001"), netip.MustParseAddrPort("127.0.0.1:7002")
	r := Roster{Successor: b, Members: []Member{{ID: ID{Address: a}, State: InSync}, {ID: ID{Address: b}, State: InSync, Busy: true}}}
	if line := r.Line(); line[0] != b || line[1] != a {
		t.Fatal(line)
	}
}
