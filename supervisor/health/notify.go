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
}

// ReadNotify reads messages from a socket until Close. report gets them one after the other. The
// socket stays open for others, and a message that nobody has read waits in it for the next
// leader. A message leaves the socket only after report has returned true. If report returns false,
// or this process dies before, the next leader gets the message. Only one process at a time may
// read.
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
	n.done.Go(func() { n.read(report) })
	return n, nil
}

// Close ends the reading. It waits until report has returned and the message is removed. So report
// must not wait for the caller of Close.
func (n *Notify) Close() {
	_ = n.conn.SetReadDeadline(time.Unix(1, 0)) // ends peek, and nothing else
	n.done.Wait()
	_ = n.conn.Close()
}

// maxFiles is how many descriptors the kernel passes with one datagram (SCM_MAX_FD).
const maxFiles = 253

// pause is the time until the next attempt to read after an error, for example when the kernel
// has no memory.
const pause = 10 * time.Millisecond

func (n *Notify) read(report func(Message) bool) {
	data := make([]byte, maxMessageBytes)
	control := make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(4*maxFiles))
	for {
		size, controlSize, flags, err := n.peek(data, control)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			time.Sleep(pause)
			continue
		}
		pid, files := ancillary(control[:controlSize])
		accepted := true
		if pid != 0 && flags&unix.MSG_TRUNC == 0 {
			m := Parse(data[:size])
			m.PID = pid
			accepted = report(m)
		}
		// Closing answers a BARRIER=1, so it comes last. dynast stores no descriptors (FDSTORE=1).
		for _, fd := range files {
			_ = unix.Close(fd)
		}
		if !accepted {
			return
		}
		if n.remove() != nil {
			time.Sleep(pause)
		}
	}
}

// remove takes the first datagram from the socket, together with its descriptors.
func (n *Notify) remove() error {
	var failed error
	err := n.raw.Control(func(fd uintptr) {
		for failed = unix.EINTR; failed == unix.EINTR; {
			_, _, _, _, failed = unix.Recvmsg(int(fd), make([]byte, 1), nil, unix.MSG_DONTWAIT)
		}
	})
	return errors.Join(err, failed)
}

// peek waits for a datagram and leaves it in the socket. It never blocks in the system call, because
// another process that shares the socket may set it to blocking mode, and Close could not end such
// a call.
func (n *Notify) peek(data, control []byte) (size, controlSize, flags int, err error) {
	var failed error
	err = n.raw.Read(func(fd uintptr) bool {
		for {
			size, controlSize, flags, _, failed = unix.Recvmsg(int(fd), data, control, unix.MSG_PEEK|unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
			if failed != unix.EINTR {
				return failed != unix.EAGAIN
			}
		}
	})
	return size, controlSize, flags, errors.Join(err, failed)
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
