package member

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// The names of listening sockets.
const (
	// ClientListener is the one for clients.
	ClientListener = "clients"
	// DashboardListener is the one for the dashboard; a cluster may have none.
	DashboardListener = "dashboard"
	// OwnListener is a worker's own, for other members. No other process has it.
	OwnListener = "member"
)

// FirstListenerFD is the descriptor of the first listening socket that a
// worker inherits; the others follow, in the order of their names in ListenersEnv.
const FirstListenerFD = 3

// Listener is a listening socket with a name. It is opened once, by the first
// leader, and passed on from member to member, so that what it accepts outlives
// any of them: while nobody accepts, connections wait in the kernel.
type Listener struct {
	Name string
	File *os.File
}

// Listeners are the sockets that all members share.
type Listeners []Listener

// File returns the socket of this name, nil if there is none.
func (l Listeners) File(name string) *os.File {
	for _, x := range l {
		if x.Name == name {
			return x.File
		}
	}
	return nil
}

// Files returns the sockets in their order.
func (l Listeners) Files() []*os.File {
	out := make([]*os.File, 0, len(l))
	for _, x := range l {
		out = append(out, x.File)
	}
	return out
}

// Names returns the names in the same order.
func (l Listeners) Names() []string {
	out := make([]string, 0, len(l))
	for _, x := range l {
		out = append(out, x.Name)
	}
	return out
}

// NameListeners puts names to files that arrived in the same order.
func NameListeners(names []string, files []*os.File) (Listeners, error) {
	if len(names) != len(files) {
		return nil, fmt.Errorf("%d listening sockets came with the names %q", len(files), names)
	}
	var out Listeners
	for i, name := range names {
		if name == "" || out.File(name) != nil {
			return nil, fmt.Errorf("listening sockets with the names %q: empty, or twice the same", names)
		}
		out = append(out, Listener{Name: name, File: files[i]})
	}
	return out, nil
}

// Inherited takes over the sockets that a leader passed on to this process, as
// ListenersEnv names them. They are closed in processes that this one starts:
// the supervisor of a leader passes them on by name.
func Inherited() (Listeners, error) {
	names := strings.Split(os.Getenv(ListenersEnv), ",")
	var files []*os.File
	for i, name := range names {
		syscall.CloseOnExec(FirstListenerFD + i)
		files = append(files, os.NewFile(uintptr(FirstListenerFD+i), name))
	}
	out, err := NameListeners(names, files)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ListenersEnv, err)
	}
	return out, nil
}
