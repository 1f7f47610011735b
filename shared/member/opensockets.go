package member

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/proc"
)

// Open opens the sockets of services that are not open yet. dir is the directory of the services.
// Programs that outlived all members still have their sockets open; these are taken from them. If
// another process has an address, Open waits for it, at most for patience in all. The errors name
// the service; a service whose socket cannot be opened does not keep others from starting.
func (s *Sockets) Open(services []config.Service, dir string, patience time.Duration) []error {
	deadline := time.Now().Add(patience)
	var errs []error
	for _, service := range services {
		for _, l := range service.Listen {
			name := ServiceListener(service.Name, l.Name)
			if s.File(name) != nil {
				continue
			}
			file, err := openSocket(l.Address, filepath.Join(dir, service.Name), deadline)
			if err == nil {
				err = s.Add(Listener{Name: name, File: file})
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("service %s: socket %s: %w", service.Name, l.Name, err))
			}
		}
	}
	return errs
}

// openSocket opens a socket, or takes it from a program of the service, whose instances are in dir.
func openSocket(address, dir string, deadline time.Time) (*os.File, error) {
	file, err := listen(address, time.Time{})
	if err == nil {
		return file, nil
	}
	held, e := reclaim(address, dir)
	switch {
	case e == nil:
		return held, nil
	case !errors.Is(e, fs.ErrNotExist):
		return nil, fmt.Errorf("%w (a program of the service has it, and this user may not take it back: %w)", err, e)
	}
	return listen(address, deadline)
}

func listen(address string, deadline time.Time) (*os.File, error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return openUnix(path)
	}
	f, err := proc.ListenTCP(address, deadline)
	if err != nil {
		if pid, comm, ok := proc.WhoListens(address); ok {
			return nil, fmt.Errorf("%s is in use by %s (pid %d): stop it, or choose another address", address, comm, pid)
		}
	}
	return f, err
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

// reclaim takes a socket from a program of a service, whose instances are in dir. A program can only
// be asked for it by root, or by a user who may trace it (see ptrace(2)).
func reclaim(address, dir string) (*os.File, error) {
	locks, err := filepath.Glob(filepath.Join(dir, "*", "lock"))
	if err != nil {
		return nil, err
	}
	err = fs.ErrNotExist
	for _, lock := range locks {
		holders, e := proc.LockHolders(lock)
		if e != nil {
			return nil, e
		}
		for _, h := range holders {
			file, e := proc.ListeningSocket(h.Identity, func(a unix.Sockaddr) bool { return hasAddress(a, address) })
			switch {
			case file != nil:
				return file, nil
			case e != nil && !errors.Is(e, proc.ErrGone) && !errors.Is(e, fs.ErrNotExist):
				err = e
			}
		}
	}
	return nil, err
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
