package proc

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// WhoListens finds the process that listens on a TCP address host:port, to say
// who has taken a port. It is a best effort: it sees only processes that this user
// may look into. A listener on the same port of all addresses counts, and any on
// the port when the host is a name.
func WhoListens(addr string) (pid int, comm string, ok bool) {
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return 0, "", false
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return 0, "", false
	}
	ip, _ := netip.ParseAddr(host) // not valid for a name: any address counts then
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

// listeners returns the sockets of a table that listen on a port, in the form
// in which /proc/PID/fd names them.
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

// parseHexAddress reads 0100007F:094B: the address as 32-bit words in the
// byte order of the machine, the port as a plain number.
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

// whoHolds looks through the descriptors of all processes.
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
