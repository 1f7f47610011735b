package member

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// The names of the listening sockets.
const (
	// ClientListener is the socket for clients.
	ClientListener = "clients"
	// DashboardListener is the socket for the dashboard. A cluster may have none.
	DashboardListener = "dashboard"
	// OwnListener is a worker's own socket for other members. No other process has it.
	OwnListener = "member"
)

// FirstListenerFD is the descriptor of the first listening socket that a worker inherits. The
// others follow, in the order of the names in ListenersEnv.
const FirstListenerFD = 3

// Listener is a listening socket with a name. The first leader opens it, and it is passed on
// from member to member. So its accept queue outlives each member: while no process accepts,
// connections wait in the kernel.
type Listener struct {
	Name string
	File *os.File
}

// Listeners are the sockets that all members share.
type Listeners []Listener

// File returns the socket with a name, or nil if there is none.
func (l Listeners) File(name string) *os.File {
	for _, x := range l {
		if x.Name == name {
			return x.File
		}
	}
	return nil
}

// Files returns the sockets in order.
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

// NameListeners assigns names to files. Both are in the same order.
func NameListeners(names []string, files []*os.File) (Listeners, error) {
	if len(names) != len(files) {
		return nil, fmt.Errorf("got %d listening sockets with the names %q: the numbers differ", len(files), names)
	}
	var out Listeners
	for i, name := range names {
		if name == "" || out.File(name) != nil {
			return nil, fmt.Errorf("got listening sockets with the names %q: a name is empty or occurs twice", names)
		}
		out = append(out, Listener{Name: name, File: files[i]})
	}
	return out, nil
}

// Inherited takes over the sockets that a leader passed to this process, with the names in
// ListenersEnv. They are closed in processes that this one starts. The supervisor of a leader
// passes them on explicitly.
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
