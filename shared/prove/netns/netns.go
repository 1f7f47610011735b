// Package netns makes small networks for tests on one machine: each host is a network namespace,
// and a bridge connects them. It cuts connections between hosts in either direction, slows them,
// and removes everything that it made.
//
// It needs root and the commands "ip" and "tc" of iproute2; Available says what is missing. It uses
// no packet filter, because many kernels of small machines have none: a host that is cut off from
// another one gets a wrong link-layer address for it, so that its packets are lost silently, as
// on a broken line.
package netns

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Host is one end of a network.
type Host struct {
	// Name is the name of its namespace. It is empty for the outside.
	Name string
	// IP is its address in the network.
	IP netip.Addr

	port string // its end of the veth pair at the bridge
	dev  string // its device inside
}

// Network is a bridge with hosts.
type Network struct {
	// Outside is the machine itself, with an address in the network.
	Outside *Host
	// Hosts are the namespaces.
	Hosts []*Host

	bridge string
	prefix netip.Prefix
	cut    map[[2]*Host]bool
	slow   map[*Host]bool
	netem  bool
}

// Available returns nil if networks can be made here. Otherwise the error says what is missing.
func Available() error {
	if os.Getuid() != 0 {
		return errors.New("network namespaces need root: run as root")
	}
	for _, command := range []string{"ip", "tc"} {
		if _, err := exec.LookPath(command); err != nil {
			return fmt.Errorf("network namespaces need iproute2, and the command %q is missing: install iproute2", command)
		}
	}
	n := &Network{bridge: name()}
	if err := errors.Join(n.probe(), n.Close()); err != nil {
		return fmt.Errorf("network namespaces are not possible here: %w", err)
	}
	return nil
}

// probe makes one of each thing that a network needs.
func (n *Network) probe() error {
	if err := run("ip", "link", "add", n.bridge, "type", "bridge"); err != nil {
		return err
	}
	_, err := n.Add()
	return err
}

// name returns a name that nobody else has. With a suffix it is short enough for a device.
func name() string {
	raw := make([]byte, 4)
	_, _ = rand.Read(raw) // it never fails
	return "dn" + hex.EncodeToString(raw)
}

// New makes a network with a number of hosts. If it fails, nothing is left.
func New(hosts int) (*Network, error) {
	n := &Network{bridge: name()}
	if err := n.make(hosts); err != nil {
		return nil, errors.Join(fmt.Errorf("network: %w", err), n.Close())
	}
	return n, nil
}

func (n *Network) make(hosts int) error {
	var err error
	if n.prefix, err = freePrefix(); err != nil {
		return err
	}
	n.Outside = &Host{IP: n.address(254), dev: n.bridge}
	for _, args := range [][]string{
		{"link", "add", n.bridge, "type", "bridge"},
		{"addr", "add", netip.PrefixFrom(n.Outside.IP, n.prefix.Bits()).String(), "dev", n.bridge},
		{"link", "set", n.bridge, "up"},
	} {
		if err := run("ip", args...); err != nil {
			return err
		}
	}
	for range hosts {
		if _, err := n.Add(); err != nil {
			return err
		}
	}
	if hosts == 0 {
		return nil
	}
	n.netem = run("tc", "qdisc", "add", "dev", n.Hosts[0].port, "root", "netem", "delay", "1ms") == nil
	if n.netem {
		return run("tc", "qdisc", "del", "dev", n.Hosts[0].port, "root")
	}
	return nil
}

// address returns an address of the network by its last byte.
func (n *Network) address(last byte) netip.Addr {
	a := n.prefix.Addr().As4()
	a[3] = last
	return netip.AddrFrom4(a)
}

// freePrefix returns a subnet in 10.0.0.0/8 that no interface of this machine has.
func freePrefix() (netip.Prefix, error) {
	used, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Prefix{}, err
	}
	for range 1000 {
		raw := make([]byte, 2)
		_, _ = rand.Read(raw) // it never fails
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 128 + raw[0]%100, raw[1], 0}), 24)
		if !overlaps(p, used) {
			return p, nil
		}
	}
	return netip.Prefix{}, errors.New("no subnet of 10.0.0.0/8 is free")
}

func overlaps(p netip.Prefix, used []net.Addr) bool {
	for _, a := range used {
		if other, err := netip.ParsePrefix(a.String()); err == nil && other.Overlaps(p) {
			return true
		}
	}
	return false
}

// maxHosts is how many hosts a network can have.
const maxHosts = 200

// Add adds a host.
func (n *Network) Add() (*Host, error) {
	i := len(n.Hosts) + 1
	if i > maxHosts {
		return nil, fmt.Errorf("network: more than %d hosts", maxHosts)
	}
	h := &Host{Name: fmt.Sprintf("%s-%d", n.bridge, i), port: fmt.Sprintf("%sv%d", n.bridge, i), dev: "eth0"}
	if err := run("ip", "netns", "add", h.Name); err != nil {
		return nil, err
	}
	n.Hosts = append(n.Hosts, h) // from here on Close removes it
	steps := [][]string{
		{"link", "add", h.port, "type", "veth", "peer", "name", h.dev, "netns", h.Name},
		{"link", "set", h.port, "master", n.bridge, "up"},
		{"-n", h.Name, "link", "set", "lo", "up"},
	}
	if n.prefix.IsValid() {
		h.IP = n.address(byte(i))
		steps = append(steps, []string{"-n", h.Name, "addr", "add", netip.PrefixFrom(h.IP, n.prefix.Bits()).String(), "dev", h.dev})
	}
	for _, args := range append(steps, []string{"-n", h.Name, "link", "set", h.dev, "up"}) {
		if err := run("ip", args...); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// Close removes the network. Processes in its namespaces lose their connections, and keep running.
func (n *Network) Close() error {
	var errs []error
	for _, h := range n.Hosts {
		errs = append(errs, run("ip", "netns", "del", h.Name))
	}
	n.Hosts = nil
	// A namespace lives as long as a process or a connection needs it, and keeps its end of the pair.
	links, err := net.Interfaces()
	errs = append(errs, err)
	for _, l := range links {
		if strings.HasPrefix(l.Name, n.bridge) {
			if err := run("ip", "link", "del", l.Name); err != nil && exists(l.Name) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

func exists(link string) bool {
	_, err := net.InterfaceByName(link)
	return err == nil
}

// Do calls f in the namespace of a host, on a thread of its own. A process that f starts, and a
// socket that it opens, belong to that namespace. Goroutines that f starts do not.
func (h *Host) Do(f func() error) error {
	if h.Name == "" {
		return f()
	}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, so the thread ends with this goroutine
		ns, err := unix.Open("/run/netns/"+h.Name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			result <- fmt.Errorf("the namespace %s: %w", h.Name, err)
			return
		}
		defer unix.Close(ns)
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("enter the namespace %s: %w", h.Name, err)
			return
		}
		result <- f()
	}()
	return <-result
}

// Start starts a command in the namespace of a host.
func (h *Host) Start(cmd *exec.Cmd) error { return h.Do(cmd.Start) }

// nowhere is a link-layer address that no host has.
const nowhere = "02:00:00:00:00:01"

// Cut loses everything that one host sends to another one, until Heal. The other direction is a cut of
// its own.
func (n *Network) Cut(from, to *Host) error {
	if err := n.neighbour(from, "replace", to, "lladdr", nowhere, "nud", "permanent"); err != nil {
		return err
	}
	if n.cut == nil {
		n.cut = map[[2]*Host]bool{}
	}
	n.cut[[2]*Host{from, to}] = true
	return nil
}

// Part cuts both directions between two groups.
func (n *Network) Part(one, other []*Host) error {
	for _, a := range one {
		for _, b := range other {
			if err := errors.Join(n.Cut(a, b), n.Cut(b, a)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Heal ends all cuts.
func (n *Network) Heal() error {
	var errs []error
	for pair := range n.cut {
		if err := n.neighbour(pair[0], "del", pair[1]); err != nil {
			errs = append(errs, err)
			continue
		}
		delete(n.cut, pair)
	}
	return errors.Join(errs...)
}

func (n *Network) neighbour(at *Host, verb string, of *Host, more ...string) error {
	var args []string
	if at.Name != "" {
		args = append(args, "-n", at.Name)
	}
	return run("ip", append(append(args, "neigh", verb, of.IP.String(), "dev", at.dev), more...)...)
}

// Delays reports whether the kernel can delay packets (netem). Otherwise Slow only narrows a line.
func (n *Network) Delays() bool { return n.netem }

// Slow slows the line of a host in both directions: packets are late by the delay, if the kernel can
// do that; otherwise the line has only so many bytes per second.
func (n *Network) Slow(h *Host, delay time.Duration, bytesPerSecond int) error {
	how := []string{"tbf", "rate", fmt.Sprintf("%dbps", bytesPerSecond), "burst", "3000", "latency", "2s"}
	if n.netem {
		how = []string{"netem", "delay", fmt.Sprintf("%dus", delay.Microseconds())}
	}
	if n.slow == nil {
		n.slow = map[*Host]bool{}
	}
	n.slow[h] = true
	return errors.Join(run("tc", append([]string{"qdisc", "replace", "dev", h.port, "root"}, how...)...),
		run("tc", append([]string{"-n", h.Name, "qdisc", "replace", "dev", h.dev, "root"}, how...)...))
}

// Fast ends what Slow began, for all hosts.
func (n *Network) Fast() error {
	var errs []error
	for h := range n.slow {
		errs = append(errs, run("tc", "qdisc", "del", "dev", h.port, "root"), run("tc", "-n", h.Name, "qdisc", "del", "dev", h.dev, "root"))
		delete(n.slow, h)
	}
	return errors.Join(errs...)
}

func run(command string, args ...string) error {
	out, err := exec.Command(command, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", command, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
