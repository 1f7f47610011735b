package services

import (
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"slices"
	"strings"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/member"
)

// openSockets opens the sockets of all services. It does not wait for one that another process still
// has: the programs would be without supervision meanwhile, and each start tries again.
func (m *Manager) openSockets() {
	here := slices.DeleteFunc(m.effective(), func(s config.Service) bool { return !m.runsHere(s) })
	for _, err := range m.host.Sockets.Open(here, m.files.dir, 0) {
		m.log.Error("cannot listen for a service", "error", err)
	}
}

func (m *Manager) closeAllElsewhere() {
	if m.where.many {
		for _, s := range m.specs {
			m.closeElsewhere(s)
		}
	}
}

// closeElsewhere closes the sockets of a service that does not run on this host. Clients would wait there.
func (m *Manager) closeElsewhere(s config.Service) {
	if m.runsHere(s) || m.core.Runs(s.Name) {
		return
	}
	for _, l := range s.Listen {
		if name := member.ServiceListener(s.Name, l.Name); m.host.Sockets.File(name) != nil {
			m.closeSocket(name, l)
		}
	}
}

func (m *Manager) closeSocket(name string, l config.Listen) {
	m.host.Sockets.Remove(name)
	if path, ok := strings.CutPrefix(l.Address, "unix:"); ok {
		_ = os.Remove(path)
	}
}

// closeSockets closes the sockets that the services before had and these do not have.
func (m *Manager) closeSockets(before map[string]config.Service) {
	for _, s := range before {
		for _, l := range s.Listen {
			name := member.ServiceListener(s.Name, l.Name)
			if !slices.Contains(m.specs[s.Name].Listen, l) && name != member.ClientListener {
				m.closeSocket(name, l)
			}
		}
	}
}

// socketsOf returns the sockets of a service, in the order of its block.
func (m *Manager) socketsOf(s config.Service) ([]*os.File, error) {
	var out []*os.File
	for _, l := range s.Listen {
		f := m.host.Sockets.File(member.ServiceListener(s.Name, l.Name))
		if f == nil {
			// Opening it failed before. What was in the way may be gone.
			if errs := m.host.Sockets.Open([]config.Service{s}, m.files.dir, 0); len(errs) > 0 {
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
