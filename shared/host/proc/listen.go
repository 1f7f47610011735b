package proc

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ReleaseTime is how long a process that was just killed may still have its locks and sockets.
const ReleaseTime = 300 * time.Millisecond

// ListenTCP opens a listening socket as a file. Nobody accepts on it. If the address is in use,
// ListenTCP tries again until the deadline; a deadline in the past means one attempt.
func ListenTCP(address string, deadline time.Time) (*os.File, error) {
	l, err := net.Listen("tcp", address)
	for errors.Is(err, unix.EADDRINUSE) && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
		l, err = net.Listen("tcp", address)
	}
	if err != nil {
		return nil, err
	}
	f, err := l.(*net.TCPListener).File()
	return f, errors.Join(err, l.Close()) // the duplicate keeps the socket open
}

// Waiting returns how many connections to a listening socket are complete and not accepted yet.
func Waiting(l *net.TCPListener) (int, error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("read the accept queue of %s: %w", l.Addr(), err)
	}
	var info *unix.TCPInfo
	var infoErr error
	err = raw.Control(func(fd uintptr) { info, infoErr = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err := errors.Join(err, infoErr); err != nil {
		return 0, fmt.Errorf("read the accept queue of %s: %w", l.Addr(), err)
	}
	return int(info.Unacked), nil // for a listening socket this is the length of the queue
}

// WhoListens finds the process that listens on a TCP address host:port, so that an error can
// name who has taken a port. It is a best effort: it sees only processes that this user may
// inspect. A listener on the same port of all addresses counts. If the host is a name, any
// listener on the port counts.
func WhoListens(addr string) (pid int, comm string, ok bool) {
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return 0, "", false
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return 0, "", false
	}
	ip, _ := netip.ParseAddr(host) // invalid for a name, and then any address counts
	var sockets []string
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		sockets = append(sockets, listeners(table, ip.Unmap(), uint16(port))...)
	}
	if len(sockets) == 0 {
		return 0, "", false
	}
	return whoHolds(sockets)
}

// stateListen is TCP_LISTEN in the tables of /proc/net.
const stateListen = "0A"

// listeners returns the sockets in a table that listen on a port, in the form in which
// /proc/PID/fd shows them.
func listeners(table string, ip netip.Addr, port uint16) []string {
	f, err := os.Open(table)
	if err != nil {
		return nil
	}
	defer f.Close()
	var found []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode ...
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 || fields[3] != stateListen {
			continue
		}
		local, err := parseHexAddress(fields[1])
		if err != nil || local.Port() != port {
			continue
		}
		if a := local.Addr(); a == ip || a.IsUnspecified() || !ip.IsValid() || ip.IsUnspecified() {
			found = append(found, "socket:["+fields[9]+"]")
		}
	}
	return found
}

// parseHexAddress parses an address like 0100007F:094B. The IP address consists of 32-bit words
// in the machine's byte order; the port is a plain number.
func parseHexAddress(s string) (netip.AddrPort, error) {
	host, portText, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(host)
	if err != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, fmt.Errorf("parse address %q", s)
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	ip, ok := netip.AddrFromSlice(raw)
	port, err := strconv.ParseUint(portText, 16, 16)
	if err != nil || !ok {
		return netip.AddrPort{}, fmt.Errorf("parse address %q", s)
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(port)), nil
}

// whoHolds searches the descriptors of all processes.
func whoHolds(sockets []string) (pid int, comm string, ok bool) {
	dirs, _ := filepath.Glob("/proc/[0-9]*/fd")
	for _, dir := range dirs {
		f, err := os.Open(dir)
		if err != nil {
			continue
		}
		names, _ := f.Readdirnames(-1)
		f.Close()
		for _, name := range names {
			target, err := os.Readlink(filepath.Join(dir, name))
			if err != nil || !slices.Contains(sockets, target) {
				continue
			}
			pid, err = strconv.Atoi(filepath.Base(filepath.Dir(dir)))
			if err != nil {
				continue
			}
			if st, err := readStat(pid); err == nil {
				comm = st.comm
			}
			return pid, comm, true
		}
	}
	return 0, "", false
}
