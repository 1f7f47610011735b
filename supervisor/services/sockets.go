package services

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member"
	rules "github.com/dynast-io/dynast/shared/rules/services"
)

func (m *Manager) openSockets() {
	m.recoverSockets()
	for _, err := range m.host.Sockets.Open(m.effective()) {
		m.log.Error("cannot listen for a service", "error", err)
	}
}

// recoverSockets gets the sockets back that only programs have, because all members were dead. The
// address of such a socket is in use, so a new one could not be opened. And if the program died,
// connections would be refused.
func (m *Manager) recoverSockets() {
	for _, i := range m.instances {
		s, ok := m.specs[i.Record.ID.Service]
		if !ok || i.Record.Process == (rules.Process{}) {
			continue
		}
		for _, l := range s.Listen {
			name := member.ServiceListener(s.Name, l.Name)
			if m.host.Sockets.File(name) != nil {
				continue
			}
			file, err := m.socketOf(i, l.Address)
			if err == nil && file != nil {
				err = m.host.Sockets.Add(member.Listener{Name: name, File: file})
			}
			if err != nil {
				m.log.Warn("cannot get a socket back from its program", "instance", i.Record.ID.String(), "socket", l.Name, "error", err)
			}
		}
	}
}

// socketOf returns the socket with an address from a process of an instance, or nil.
func (m *Manager) socketOf(i *instance, address string) (*os.File, error) {
	processes, err := i.tree(m.files, false).Tree()
	if err != nil {
		return nil, err
	}
	for _, id := range processes {
		file, err := proc.ListeningSocket(id, func(a unix.Sockaddr) bool { return hasAddress(a, address) })
		if errors.Is(err, proc.ErrGone) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if file != nil || err != nil {
			return file, err
		}
	}
	return nil, nil
}

// hasAddress reports whether a socket has the address of a listen block.
func hasAddress(a unix.Sockaddr, address string) bool {
	path, local := strings.CutPrefix(address, "unix:")
	var ip net.IP
	var port int
	switch a := a.(type) {
	case *unix.SockaddrUnix:
		return local && a.Name == path
	case *unix.SockaddrInet4:
		ip, port = a.Addr[:], a.Port
	case *unix.SockaddrInet6:
		ip, port = a.Addr[:], a.Port
	default:
		return false
	}
	if local {
		return false
	}
	want, err := net.ResolveTCPAddr("tcp", address)
	return err == nil && port == want.Port && (ip.Equal(want.IP) || ip.IsUnspecified() && (want.IP == nil || want.IP.IsUnspecified()))
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
			if errs := m.host.Sockets.Open([]config.Service{s}); len(errs) > 0 {
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
