package services

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net"
	"os"
	"strings"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member"
)

// OpenSockets opens the sockets of services that are not open yet. The errors name the service;
// a service whose socket cannot be opened does not keep others from starting.
func OpenSockets(sockets *member.Sockets, services []config.Service) []error {
	var errs []error
	for _, s := range services {
		for _, l := range s.Listen {
			name := member.ServiceListener(s.Name, l.Name)
			if sockets.File(name) != nil {
				continue
			}
			file, err := openSocket(l.Address)
			if err == nil {
				err = sockets.Add(member.Listener{Name: name, File: file})
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("service %s: socket %s: %w", s.Name, l.Name, err))
			}
		}
	}
	return errs
}

func openSocket(address string) (*os.File, error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return openUnix(path)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		if pid, comm, ok := proc.WhoListens(address); ok {
			return nil, fmt.Errorf("%s is in use by %s (pid %d): stop it, or choose another address", address, comm, pid)
		}
		return nil, err
	}
	f, err := l.(*net.TCPListener).File()
	return f, errors.Join(err, l.Close()) // the duplicate keeps the socket open
}

// openUnix replaces a socket that nobody listens on.
func openUnix(path string) (*os.File, error) {
	if c, err := net.Dial("unix", path); err == nil {
		return nil, errors.Join(fmt.Errorf("a process listens on %s: stop it, or choose another path", path), c.Close())
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSocket == 0 {
		return nil, fmt.Errorf("%s exists and is not a socket: remove it, or choose another path", path)
	} else if err == nil {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	return f, errors.Join(err, l.Close())
}

func (m *Manager) openSockets() {
	for _, err := range OpenSockets(m.host.Sockets, m.effective()) {
		m.log.Error("cannot listen for a service", "error", err)
	}
}

// closeSockets closes the sockets that the services before had and these do not have.
func (m *Manager) closeSockets(before map[string]config.Service) {
	for _, s := range before {
		for _, l := range s.Listen {
			if !hasListen(m.specs[s.Name], l) {
				m.host.Sockets.Remove(member.ServiceListener(s.Name, l.Name))
				if path, ok := strings.CutPrefix(l.Address, "unix:"); ok {
					_ = os.Remove(path)
				}
			}
		}
	}
}

func hasListen(s config.Service, l config.Listen) bool {
	for _, x := range s.Listen {
		if x == l {
			return true
		}
	}
	return false
}

// socketsOf returns the sockets of a service, in the order of its block.
func (m *Manager) socketsOf(s config.Service) ([]*os.File, error) {
	var out []*os.File
	for _, l := range s.Listen {
		f := m.host.Sockets.File(member.ServiceListener(s.Name, l.Name))
		if f == nil {
			// Opening it failed before. What was in the way may be gone.
			if errs := OpenSockets(m.host.Sockets, []config.Service{s}); len(errs) > 0 {
				return nil, errors.Join(errs...)
			}
			f = m.host.Sockets.File(member.ServiceListener(s.Name, l.Name))
		}
		out = append(out, f)
	}
	return out, nil
}

// endpoints returns the address of the store, for programs.
func (m *Manager) endpoints() string {
	scheme := "http"
	if m.host.Config.Client.TLS() {
		scheme = "https"
	}
	return scheme + "://" + m.host.Config.Client.Listen
}

// notifyName is the address of the notify socket. It is in the abstract namespace, so that programs
// of every user can reach it, and it is the same for every leader of a data directory, so that
// programs that outlive all of them reach the next one. Who sent a message is known from the
// kernel.
func notifyName(dir string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(dir))
	return fmt.Sprintf("@dynast-notify-%x", h.Sum64())
}

// notifyPath returns the value of NOTIFY_SOCKET, or "" if the socket could not be opened.
func (m *Manager) notifyPath() string {
	if m.host.Sockets.File(member.NotifyListener) == nil {
		return ""
	}
	return notifyName(m.host.Dir.Path())
}
