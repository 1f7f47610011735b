package health

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Listen opens a notify socket. A name that begins with @ is in the abstract namespace.
func Listen(name string) (*os.File, error) {
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("notify socket: %w", err)
	}
	// A datagram gets the pid of its sender when it is sent. So this has to be set before the
	// first one arrives, and not when a leader begins to read.
	if err := passCredentials(c); err != nil {
		return nil, errors.Join(fmt.Errorf("notify socket: %w", err), c.Close())
	}
	f, err := c.File() // the duplicate keeps the socket open
	return f, errors.Join(err, c.Close())
}

func passCredentials(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
	return errors.Join(err, os.NewSyscallError("SO_PASSCRED", set))
}

// Notify reads the messages of programs.
type Notify struct {
	conn *net.UnixConn
	raw  syscall.RawConn
	done sync.WaitGroup
	// mu is held while the reader or Pending looks into the socket.
	mu sync.Mutex
}

// ReadNotify reads messages from a socket until Close. report gets them one after the other. The
// socket stays open for others. A message leaves it when report has returned true. After false, the
// reading ends, and the message waits in the socket for the next leader.
func ReadNotify(f *os.File, report func(Message) bool) (*Notify, error) {
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("notify socket: %w", err)
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("notify socket: it is a %s socket", c.LocalAddr().Network()), c.Close())
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("notify socket: %w", err), c.Close())
	}
	n := &Notify{conn: conn, raw: raw}
	// An earlier leader may have died while it looked at all messages.
	if err := raw.Control(func(fd uintptr) { _ = peekFrom(fd, -1) }); err != nil {
		return nil, errors.Join(fmt.Errorf("notify socket: %w", err), c.Close())
	}
	n.done.Go(func() { n.read(report) })
	return n, nil
}

// Close ends the reading. It waits until report has returned. So report must not wait for the
// caller of Close.
func (n *Notify) Close() {
	// The reader first takes the message out of the socket that was handled.
	_ = n.conn.SetReadDeadline(time.Unix(1, 0))
	n.done.Wait()
	_ = n.conn.Close()
}

// maxFiles is how many descriptors the kernel passes with one datagram (SCM_MAX_FD).
const maxFiles = 253

// controlBytes is the size of what comes with a datagram.
var controlBytes = unix.CmsgSpace(unix.SizeofUcred) + unix.CmsgSpace(4*maxFiles)

// pause is the time until the next attempt to read after an error, for example when the kernel
// has no memory.
const pause = 10 * time.Millisecond

func (n *Notify) read(report func(Message) bool) {
	data := make([]byte, maxMessageBytes)
	control := make([]byte, controlBytes)
	for {
		// The descriptors that come with a message stay open in the socket until it is taken. Closing
		// the last of them answers a BARRIER=1. dynast stores no descriptors (FDSTORE=1).
		m, ok, err := n.next(data, control)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return
		case err != nil:
			time.Sleep(pause)
		case ok && !report(m):
			return
		default:
			n.take(data, control)
		}
	}
}

// take takes the first message out of the socket.
func (n *Notify) take(data, control []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	_ = n.raw.Control(func(fd uintptr) { _, _, _ = receive(fd, data, control, 0) })
}

// next waits for a message, and leaves it in the socket. ok is false if the datagram is no message.
func (n *Notify) next(data, control []byte) (m Message, ok bool, err error) {
	var failed error
	err = n.raw.Read(func(fd uintptr) bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		m, ok, failed = receive(fd, data, control, unix.MSG_PEEK)
		return failed != unix.EAGAIN
	})
	return m, ok, errors.Join(err, failed)
}

// receive returns the next message, or EAGAIN. It never blocks in the system call, because another
// process that shares the socket may set it to blocking mode, and Close could not end such a call.
func receive(fd uintptr, data, control []byte, flag int) (m Message, ok bool, err error) {
	for {
		size, controlSize, flags, _, err := unix.Recvmsg(int(fd), data, control, flag|unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return Message{}, false, err
		}
		pid, files := ancillary(control[:controlSize])
		for _, file := range files {
			_ = unix.Close(file)
		}
		if pid == 0 || flags&unix.MSG_TRUNC != 0 {
			return Message{}, false, nil
		}
		m = Parse(data[:size])
		m.PID = pid
		return m, true, nil
	}
}

// peekFrom sets where MSG_PEEK begins, in bytes from the first message on. It moves on with each
// look. With -1, each look shows the first message.
func peekFrom(fd uintptr, offset int) error {
	return os.NewSyscallError("SO_PEEK_OFF", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEEK_OFF, offset))
}

// Pending returns the messages that wait in the socket, and leaves them there. The one that report
// is handling is among them.
func (n *Notify) Pending() []Message {
	n.mu.Lock()
	defer n.mu.Unlock()
	return pending(n.raw)
}

// Pending returns the messages that wait in a socket that nobody reads, and leaves them there.
func Pending(f *os.File) []Message {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil
	}
	return pending(raw)
}

// maxPending bounds how many messages pending looks at.
const maxPending = 10_000

func pending(raw syscall.RawConn) []Message {
	var out []Message
	data, control := make([]byte, maxMessageBytes), make([]byte, controlBytes)
	_ = raw.Control(func(fd uintptr) {
		if peekFrom(fd, 0) != nil {
			return
		}
		for range maxPending {
			m, ok, err := receive(fd, data, control, unix.MSG_PEEK)
			if err != nil {
				break
			}
			if ok {
				out = append(out, m)
			}
		}
		_ = peekFrom(fd, -1)
	})
	return out
}

// ancillary returns the pid of the sender, or 0, and the descriptors that came with a datagram.
func ancillary(control []byte) (pid int, files []int) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0, nil
	}
	for _, m := range messages {
		if cred, err := unix.ParseUnixCredentials(&m); err == nil {
			pid = int(cred.Pid)
		}
		if fds, err := unix.ParseUnixRights(&m); err == nil {
			files = append(files, fds...)
		}
	}
	return pid, files
}
