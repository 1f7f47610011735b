package datadir

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// These are the sockets on which a leader answers other processes of this host. They are in the
// data directory, so that everybody who may enter it finds them. In a deep directory their
// paths would be too long for a socket address. So they are reached through /proc/self/fd,
// whose paths are always short.
const (
	adminSocket   = "admin.sock"
	handoffSocket = "handoff.sock"
)

// ListenAdmin opens the socket for operators' commands, and replaces that of an earlier leader.
// Everybody who may enter the data directory may connect. The caller's user id decides what it
// may do.
func (d *Dir) ListenAdmin() (*net.UnixListener, error) { return d.listen(adminSocket, 0o666) }

// ListenHandoff opens the socket on which descriptors are passed. Only the owner may connect.
func (d *Dir) ListenHandoff() (*net.UnixListener, error) { return d.listen(handoffSocket, 0o600) }

// DialAdmin connects to the leader's admin socket. Its signature is that of a gRPC dialer; the
// address is not used.
func (d *Dir) DialAdmin(ctx context.Context, _ string) (net.Conn, error) {
	return d.dial(ctx, adminSocket)
}

// DialHandoff connects to the leader's hand-off socket.
func (d *Dir) DialHandoff(ctx context.Context) (*net.UnixConn, error) {
	c, err := d.dial(ctx, handoffSocket)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

// listen binds under another name and then renames. So at any moment the name refers to the
// previous leader's socket or to this one.
func (d *Dir) listen(name string, mode os.FileMode) (*net.UnixListener, error) {
	temp := fmt.Sprintf(".%s.%d", name, os.Getpid())
	if err := os.Remove(filepath.Join(d.path, temp)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("listen on %s: %w", name, err)
	}
	var l *net.UnixListener
	err := d.short(func(dir string) (err error) {
		l, err = net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: filepath.Join(dir, temp)})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", filepath.Join(d.path, name), err)
	}
	l.SetUnlinkOnClose(false) // when the listener is closed, the name may refer to the next leader's socket
	err = errors.Join(
		os.Chmod(filepath.Join(d.path, temp), mode),
		os.Rename(filepath.Join(d.path, temp), filepath.Join(d.path, name)))
	if err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("listen on %s: %w", filepath.Join(d.path, name), err)
	}
	return l, nil
}

func (d *Dir) dial(ctx context.Context, name string) (c net.Conn, err error) {
	err = d.short(func(dir string) error {
		c, err = (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(dir, name))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", filepath.Join(d.path, name), err)
	}
	return c, nil
}

// short calls f with a short path of the directory, however long its own path is.
func (d *Dir) short(f func(dir string) error) error {
	h, err := os.Open(d.path)
	if err != nil {
		return err
	}
	defer h.Close()
	return f(fmt.Sprintf("/proc/self/fd/%d", h.Fd()))
}
