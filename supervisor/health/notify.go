package health

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

// Message is what a program says on the notify socket. The names are those of sd_notify(3).
type Message struct {
	// PID is the sender, as the kernel reports it.
	PID                        int
	Ready, Stopping, Reloading bool
	// Ping is WATCHDOG=1, and Hung is WATCHDOG=trigger.
	Ping, Hung bool
	// Status is STATUS=, without what a terminal cannot show. HasStatus tells an empty one from
	// none.
	Status    string
	HasStatus bool
	// MainPID is MAINPID=, or 0.
	MainPID int
	// Extend is EXTEND_TIMEOUT_USEC=, or 0.
	Extend time.Duration
}

const (
	maxMessageBytes = 4 << 10
	maxStatusRunes  = 256
)

// Parse reads the assignments of a datagram. It ignores what it does not know.
func Parse(b []byte) Message {
	var m Message
	for line := range strings.SplitSeq(string(b), "\n") {
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		switch name {
		case "READY":
			m.Ready = m.Ready || value == "1"
		case "STOPPING":
			m.Stopping = m.Stopping || value == "1"
		case "RELOADING":
			m.Reloading = m.Reloading || value == "1"
		case "WATCHDOG":
			m.Ping = m.Ping || value == "1"
			m.Hung = m.Hung || value == "trigger"
		case "STATUS":
			m.Status, m.HasStatus = printable(value, maxStatusRunes), true
		case "MAINPID":
			if pid, err := strconv.ParseInt(value, 10, 32); err == nil && pid > 0 {
				m.MainPID = int(pid)
			}
		case "EXTEND_TIMEOUT_USEC":
			if usec, err := strconv.ParseInt(value, 10, 64); err == nil && usec > 0 {
				m.Extend = time.Duration(min(usec, int64(24*time.Hour/time.Microsecond))) * time.Microsecond
			}
		}
	}
	return m
}

// printable makes a text safe for a terminal and bounds its length.
func printable(s string, runes int) string {
	out := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(s, "?"))
	out = strings.TrimSpace(out)
	if r := []rune(out); len(r) > runes {
		out = string(r[:runes])
	}
	return out
}

// Listen opens a notify socket. A name that begins with @ is in the abstract namespace.
func Listen(name string) (*os.File, error) {
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("notify socket: %w", err)
	}
	f, err := c.File() // the duplicate keeps the socket open
	return f, errors.Join(err, c.Close())
}

// Notify reads the messages of programs.
type Notify struct {
	conn *net.UnixConn
	done sync.WaitGroup
}

// ReadNotify reads messages from a socket until Close. The socket stays open for others, and a
// message that nobody has read waits in it for the next leader.
func ReadNotify(f *os.File, report func(Message)) (*Notify, error) {
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("notify socket: %w", err)
	}
	n := &Notify{conn: c.(*net.UnixConn)}
	raw, err := n.conn.SyscallConn()
	if err == nil {
		var set error
		err = raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
		err = errors.Join(err, set)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("notify socket: %w", err), c.Close())
	}
	n.done.Add(1)
	go n.read(report)
	return n, nil
}

// Close ends the reading.
func (n *Notify) Close() {
	_ = n.conn.Close()
	n.done.Wait()
}

func (n *Notify) read(report func(Message)) {
	defer n.done.Done()
	data, control := make([]byte, maxMessageBytes), make([]byte, 1024)
	for {
		size, controlSize, flags, _, err := n.conn.ReadMsgUnix(data, control)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // no kernel memory, for example
			continue
		}
		pid := sender(control[:controlSize])
		if pid == 0 || flags&unix.MSG_TRUNC != 0 {
			continue
		}
		m := Parse(data[:size])
		m.PID = pid
		report(m)
	}
}

// sender returns the pid of the sender and closes descriptors that came with the message, as
// with BARRIER=1 and FDSTORE=1: closing is how a barrier is answered.
func sender(control []byte) int {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0
	}
	pid := 0
	for _, m := range messages {
		if cred, err := unix.ParseUnixCredentials(&m); err == nil {
			pid = int(cred.Pid)
		}
		if fds, err := unix.ParseUnixRights(&m); err == nil {
			for _, fd := range fds {
				_ = unix.Close(fd)
			}
		}
	}
	return pid
}
