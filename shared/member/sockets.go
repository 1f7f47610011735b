package member

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
)

// NotifyListener is the socket on which services report to their supervisor (NOTIFY_SOCKET).
const NotifyListener = "notify"

// ProcessStore is the store of pidfds of the services' processes (see proc.Store). It is shared
// like a listening socket.
const ProcessStore = "processes"

// ServiceListener returns the name of a socket of a service.
func ServiceListener(service, socket string) string { return "service/" + service + "/" + socket }

// OfServices reports whether a socket belongs to the user's services.
func OfServices(name string) bool {
	return name == NotifyListener || name == ProcessStore || strings.HasPrefix(name, "service/")
}

// Sockets are the listening sockets that all members share. Sockets of services can be added
// while the members run. It is safe for concurrent use.
type Sockets struct {
	mu  sync.Mutex
	all Listeners
	// changed is called after a socket was added or removed.
	changed func()
}

// NewSockets returns Sockets with those that a process starts with.
func NewSockets(l Listeners) *Sockets { return &Sockets{all: slices.Clone(l), changed: func() {}} }

// OnChange sets what is called after a socket was added or removed.
func (s *Sockets) OnChange(f func()) { s.changed = f }

// All returns the sockets in the order in which they are passed on.
func (s *Sockets) All() Listeners {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

// File returns the socket with a name, or nil if there is none.
func (s *Sockets) File(name string) *os.File { return s.All().File(name) }

// Add adds a socket. A name can be added once.
func (s *Sockets) Add(l Listener) error {
	s.mu.Lock()
	if s.all.File(l.Name) != nil {
		s.mu.Unlock()
		return fmt.Errorf("there is a socket %q already", l.Name)
	}
	s.all = append(s.all, l)
	s.mu.Unlock()
	s.changed()
	return nil
}

// Remove closes a socket and forgets it.
func (s *Sockets) Remove(name string) {
	s.mu.Lock()
	i := slices.IndexFunc(s.all, func(l Listener) bool { return l.Name == name })
	if i < 0 {
		s.mu.Unlock()
		return
	}
	file := s.all[i].File
	s.all = slices.Delete(s.all, i, i+1)
	s.mu.Unlock()
	_ = file.Close()
	s.changed()
}
