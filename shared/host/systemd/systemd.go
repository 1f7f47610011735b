package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// ErrActivation means that the service manager passed sockets that cannot be used.
var ErrActivation = errors.New("socket activation")

// Begin takes over the part of the environment that is for this process alone. The remaining
// environment is valid for every later leader. Begin returns the listening socket for clients,
// or nil if none was passed, and its address.
func Begin() (*os.File, string, error) {
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" {
		if pid != strconv.Itoa(os.Getpid()) {
			_ = os.Unsetenv("WATCHDOG_USEC") // another process has to answer the watchdog
		}
		_ = os.Unsetenv("WATCHDOG_PID")
	}
	files := activation.Files(true)
	switch len(files) {
	case 0:
		return nil, "", nil
	case 1:
	default:
		return nil, "", fmt.Errorf("%w: %d sockets were passed, but only one for clients is supported: use one ListenStream= in the .socket unit", ErrActivation, len(files))
	}
	address, err := listening(files[0])
	if err != nil {
		return nil, "", fmt.Errorf("%w: %s: %w", ErrActivation, files[0].Name(), err)
	}
	return files[0], address, nil
}

// listening returns the address of a listening TCP socket.
func listening(f *os.File) (string, error) {
	var accepts int
	raw, err := f.SyscallConn()
	if err == nil {
		var inner error
		err = raw.Control(func(fd uintptr) {
			accepts, inner = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		})
		err = errors.Join(err, inner)
	}
	if err != nil {
		return "", fmt.Errorf("it is not a socket: %w", err)
	}
	if accepts == 0 {
		return "", errors.New("it does not listen: set Accept=no in the .socket unit, so that the service manager passes the listening socket")
	}
	l, err := net.FileListener(f)
	if err != nil {
		return "", err
	}
	defer l.Close() // l is a copy of f
	tcp, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return "", fmt.Errorf("it listens on %s %s, but must listen on an IP address and a port", l.Addr().Network(), l.Addr())
	}
	return tcp.AddrPort().String(), nil
}

// Managed reports whether a service manager expects notifications.
func Managed() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

// Ready, Stopping and Watchdog are messages of sd_notify.
const (
	Ready    = daemon.SdNotifyReady
	Stopping = daemon.SdNotifyStopping
	Watchdog = daemon.SdNotifyWatchdog
)

// MainPID is the message that this process is the service's main process from now on.
func MainPID() string { return "MAINPID=" + strconv.Itoa(os.Getpid()) }

// Status is the message with a line for people, as 'systemctl status' shows it.
func Status(text string) string {
	return "STATUS=" + strings.ReplaceAll(strings.TrimSpace(text), "\n", " ")
}

// Reloading is the message that the configuration is being loaded. Ready ends it.
func Reloading() (string, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return "", fmt.Errorf("read the monotonic clock: %w", err)
	}
	return fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/1000), nil
}

// Notify sends several messages at once. Without a service manager it does nothing.
func Notify(words ...string) error {
	if _, err := daemon.SdNotify(false, strings.Join(words, "\n")); err != nil {
		return fmt.Errorf("notify the service manager (NOTIFY_SOCKET=%s): %w", os.Getenv("NOTIFY_SOCKET"), err)
	}
	return nil
}

// WatchdogInterval is how often Watchdog has to be sent: half of the service manager's limit. 0
// means never.
func WatchdogInterval() (time.Duration, error) {
	if !Managed() {
		return 0, nil
	}
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return 0, fmt.Errorf("WATCHDOG_USEC: %w", err)
	}
	return limit / 2, nil
}
