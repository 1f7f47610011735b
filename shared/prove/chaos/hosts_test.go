package chaos

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/prove/netns"
)

func TestImpossibleFaultsOfHosts(t *testing.T) {
	all := Weights{}
	for _, k := range kinds() {
		all[k] = 1
	}
	on, left := possibleOnHosts(all)
	if len(on) != len(hostFaults) || len(on)+len(left) != len(all) || !slices.ContainsFunc(left, func(l string) bool { return strings.HasPrefix(l, KillHeir+": ") }) {
		t.Errorf("with several hosts: %s; left out %q", on, left)
	}
	for _, k := range hostKinds {
		if hostFaults[k] == nil {
			t.Errorf("nothing injects %s", k)
		}
	}
	for k := range HostWeights() {
		if on[k] == 0 {
			t.Errorf("the default has %s, which is not possible", k)
		}
	}
	on, left = possible(all, &cluster{own: true, followers: 2}, nil, errNoVictim, false)
	for _, k := range hostKinds {
		if on[k] != 0 || !slices.ContainsFunc(left, func(l string) bool { return strings.HasPrefix(l, k+": ") && strings.Contains(l, "--hosts") }) {
			t.Errorf("%s with a single host: %s; left out %q", k, on, left)
		}
	}
}

// TestTakeoversExtendLeases checks that a lease on several hosts may live longer by each takeover, and
// not longer than that.
func TestTakeoversExtendLeases(t *testing.T) {
	s := int64(time.Second)
	l := Lease{TTL: 2 * time.Second, Called: s, Granted: s, Until: 30 * s, Takeovers: 2, Extended: 2 * (2*time.Second + 500*time.Millisecond)}
	limit := 2*time.Second + l.Extended + time.Second + leaseSlack
	l.Gone = s + int64(limit)
	if wrong := CheckLeases([]*Lease{&l}, time.Second); len(wrong) > 0 {
		t.Errorf("within the limit: %q", wrong)
	}
	l.Gone++
	if wrong := CheckLeases([]*Lease{&l}, time.Second); len(wrong) != 1 {
		t.Errorf("beyond the limit: %q", wrong)
	}
}

// TestClientsKnowOneHostOrAll checks which endpoints the clients of a round get.
func TestClientsKnowOneHostOrAll(t *testing.T) {
	r := &hostRunner{runner: &runner{cfg: Config{Clients: 6}}, hc: testHosts()}
	var got []string
	for range 9 {
		got = append(got, strings.Join(r.endpoints(), "+"))
	}
	all := "10.0.0.1:2379+10.0.0.2:2379"
	want := []string{all, "10.0.0.1:2379", all, "10.0.0.2:2379", all, "10.0.0.1:2379", all, all, all}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// testHosts returns two hosts and a free site.
func testHosts() *hostCluster {
	hc := &hostCluster{}
	for i, ip := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"} {
		s := &site{at: &netns.Host{IP: netip.MustParseAddr(ip)}}
		if i < 2 {
			s.c = &cluster{}
		}
		hc.sites = append(hc.sites, s)
	}
	return hc
}

func TestBlindness(t *testing.T) {
	var b blindness
	b.add(10, 20)
	b.add(30, 40)
	for span, want := range map[[2]int64]time.Duration{{0, 10}: 0, {0, 50}: 20, {15, 35}: 10, {21, 29}: 0, {12, 14}: 2} {
		if got := b.within(span[0], span[1]); got != want {
			t.Errorf("%v: %d, want %d", span, got, want)
		}
	}
	if b.clear(); b.within(0, 50) != 0 {
		t.Error("it is not empty")
	}
}
