package worker

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

// listenClients opens the one socket for clients. Every member gets a copy, so the socket
// stays open while any member lives.
func listenClients(address string) (*os.File, error) {
	f, err := listenShared(address)
	if err != nil {
		return nil, fmt.Errorf("clients cannot be served: %w", bindError(address, err, "client.listen (--client-listen)"))
	}
	return f, nil
}

// listenDashboard opens the dashboard's socket, which every member gets too. It returns nil if
// the dashboard is off. The leader also starts without a dashboard, so it only logs the error.
func listenDashboard(address string) (*os.File, error) {
	if address == config.Off {
		return nil, nil
	}
	f, err := listenShared(address)
	if err != nil {
		return nil, fmt.Errorf("the dashboard: %w", bindError(address, err, "dashboard.listen (--dashboard-listen)"))
	}
	return f, nil
}

// listenShared opens a listening socket that is passed on from leader to leader. No process accepts
// on it until this member leads.
func listenShared(address string) (*os.File, error) {
	return proc.ListenTCP(address, time.Now().Add(proc.ReleaseTime))
}

// listenMember opens the member address on the first free port, in the order in which members
// get their ports.
func listenMember(cfg *config.Config, used []uint16) (net.Listener, error) {
	rng := roster.PortRange{First: uint16(cfg.Member.Ports.First), Last: uint16(cfg.Member.Ports.Last)}
	host, err := netip.ParseAddr(cfg.Member.Host)
	if err != nil {
		return nil, fmt.Errorf("member.host %q: %w", cfg.Member.Host, err)
	}
	var last error
	for _, port := range rng.Candidates(used) {
		address := netip.AddrPortFrom(host, port).String()
		l, err := net.Listen("tcp", address)
		if err == nil {
			return l, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("members cannot be served: %w", bindError(address, err, "member.host (--member-host)"))
		}
		last = bindError(address, err, "member.ports (--member-ports)")
	}
	if last == nil {
		return nil, fmt.Errorf("members use every port in %d-%d: set member.ports (--member-ports) to a larger range", rng.First, rng.Last)
	}
	return nil, fmt.Errorf("no free port for a member in %d-%d; the last one: %w", rng.First, rng.Last, last)
}

// joinListener opens the member address of a joining follower: the wanted one, or the first free
// port if none is wanted.
func joinListener(cfg *config.Config, ros *roster.Roster, want roster.Address) (net.Listener, error) {
	if want.IsValid() {
		l, err := net.Listen("tcp", want.String())
		if err != nil {
			return nil, fmt.Errorf("join: %w", bindError(want.String(), err, "--address"))
		}
		return l, nil
	}
	var used []uint16
	for _, m := range ros.Members {
		used = append(used, m.Address.Port())
	}
	return listenMember(cfg, used)
}

// bindError says why listening on an address failed, and which setting to change.
func bindError(address string, err error, setting string) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		holder := "another process"
		if pid, comm, ok := proc.WhoListens(address); ok {
			holder = fmt.Sprintf("%s (pid %d)", comm, pid)
		}
		return fmt.Errorf("%s is in use by %s: stop it, or set %s to another address", address, holder, setting)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s is not an address of this host: set %s to an address of this host", address, setting)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("this user may not listen on %s (ports below 1024 need root): set %s to another address", address, setting)
	}
	return fmt.Errorf("listen on %s (%s): %w", address, setting, err)
}

// socketAlive reports whether a process listens on a Unix socket.
func socketAlive(path string) bool {
	c, err := net.DialTimeout("unix", path, 100*time.Millisecond)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}
