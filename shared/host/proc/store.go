package proc

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Store keeps pidfds of processes alive beyond the death of this process, so that a later leader
// learns how a process ended that died in between. Since Linux 6.15 a pidfd tells that to whoever
// has it, but only if it was opened before the process was reaped.
//
// The pidfds are messages in the queue of a socket that the members share. The queue lives as long
// as one of them has the socket. So a store costs the other members one descriptor in all, and no
// work: nobody reads it before the next leader does. Sending a pidfd takes one system call, and it
// does not depend on whether another member is awake.
//
// Only one process at a time may use a store. Its methods are safe for concurrent use there.
type Store struct {
	file *os.File

	mu     sync.Mutex
	all    map[*Process]Tag
	queued int // messages in the queue
}

// Tag is what a store keeps beside a pidfd. The store does not look at it.
type Tag [16]byte

const (
	// maxQueued is how many messages of a few processes may be in the queue until the store writes
	// it anew.
	maxQueued = 64
	// queueBytes is the size of the queue. A process needs about 40 bytes, and a message 1 KiB more.
	// Without CAP_NET_ADMIN the kernel grants less: by default room for about 4,000 processes.
	queueBytes = 4 << 20
	// entryBytes is the size of an entry of a message: pid, start time and tag. A message has as
	// many entries as descriptors. A message without entries is a mark: a Tag alone.
	entryBytes = 4 + 8 + len(Tag{})
	// maxEntries is how many descriptors the kernel passes with one message (SCM_MAX_FD).
	maxEntries = 253
)

// NewStoreSocket returns the socket of a new store.
func NewStoreSocket() (*os.File, error) {
	// It is connected to itself: what it sends is in its own queue, and nobody else can send to it.
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("store of processes: socket: %w", err)
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, queueBytes) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, queueBytes)
	}
	// Without an address to bind to, the kernel chooses one.
	if err = unix.Bind(fd, &unix.SockaddrUnix{}); err != nil {
		err = fmt.Errorf("store of processes: bind: %w", err)
	} else if own, e := unix.Getsockname(fd); e != nil {
		err = fmt.Errorf("store of processes: getsockname: %w", e)
	} else if e := unix.Connect(fd, own); e != nil {
		err = fmt.Errorf("store of processes: connect: %w", e)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "processes"), nil
}

// OpenStore begins to use a store. It returns the processes of it that are wanted, with their
// tags, dead or alive. The caller has to close them. The other processes are dropped. If this
// process dies meanwhile, the store is as it was.
func OpenStore(f *os.File, want func(Identity, Tag) bool) (*Store, map[*Process]Tag, error) {
	s := &Store{file: f, all: map[*Process]Tag{}}
	if err := s.restore(want); err != nil {
		for p := range s.all {
			p.Close()
		}
		return nil, nil, fmt.Errorf("store of processes: %w", err)
	}
	return s, maps.Clone(s.all), nil
}

// restore reads every message, and puts each one back before it removes it. The mark tells where
// the queue began.
func (s *Store) restore(want func(Identity, Tag) bool) error {
	var mark Tag
	_, _ = rand.Read(mark[:]) // it never fails
	if err := s.send(mark[:], nil); err != nil {
		return err
	}
	seen := map[Identity]bool{} // an interrupted restore leaves two entries of a process
	for {
		message, fds, err := s.peek()
		if err != nil {
			return err
		}
		if len(message) == len(mark) && Tag(message) == mark {
			err = s.drop(1)
			if err == nil {
				err = s.rewrite()
			}
			return err
		}
		if len(fds) > 0 {
			err = s.send(message, fds)
		}
		if err == nil {
			err = s.drop(1)
		}
		if err == nil && len(fds) > 0 {
			s.queued++
		}
		for _, fd := range fds {
			err = errors.Join(err, s.adopt(&message, fd, func(id Identity, tag Tag) bool {
				again := seen[id]
				seen[id] = true
				return !again && want(id, tag)
			}))
		}
		if err != nil {
			return err
		}
	}
}

// adopt takes the next entry off a message.
func (s *Store) adopt(message *[]byte, fd int, want func(Identity, Tag) bool) error {
	if len(*message) < entryBytes {
		unix.Close(fd)
		return errors.New("an entry is cut off")
	}
	entry := (*message)[:entryBytes]
	*message = (*message)[entryBytes:]
	id := Identity{PID: int(binary.BigEndian.Uint32(entry)), StartTime: binary.BigEndian.Uint64(entry[4:])}
	tag := Tag(entry[12:])
	if !want(id, tag) {
		unix.Close(fd)
		return nil
	}
	p, err := newProcess(id, fd)
	if err == nil {
		s.all[p] = tag
	}
	return err
}

// Add adds a process, until Remove.
func (s *Store) Add(p *Process, tag Tag) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[p] = tag
	err := s.put([]*Process{p})
	if s.queued > maxQueued+len(s.all)/maxEntries || errors.Is(err, unix.EAGAIN) {
		err = s.rewrite() // most messages are small, or about processes that are dead
	}
	if err != nil {
		return fmt.Errorf("store of processes: %w", err)
	}
	return nil
}

// Remove removes a process that was added or that OpenStore returned. A process that is closed need
// not be removed. Its pidfd stays in the queue until that is written anew.
func (s *Store) Remove(p *Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, p)
}

// rewrite replaces the messages of the queue by as few as possible.
func (s *Store) rewrite() error {
	before := s.queued
	err := s.putAll()
	if errors.Is(err, unix.EAGAIN) { // there is no room for old and new messages
		before = s.queued
		if err = s.drop(before); err == nil {
			s.queued, before = 0, 0
			err = s.putAll()
		}
	}
	if err == nil {
		err = s.drop(before)
		s.queued -= before
	}
	return err
}

func (s *Store) putAll() error {
	for some := range slices.Chunk(slices.Collect(maps.Keys(s.all)), maxEntries) {
		if err := s.put(some); err != nil {
			return err
		}
	}
	return nil
}

// put sends one message about processes, except those that are closed.
func (s *Store) put(some []*Process) error { return s.append(some, nil, nil) }

// append adds processes to a message, and sends it. The descriptors stay open meanwhile.
func (s *Store) append(some []*Process, message []byte, fds []int) error {
	if len(some) == 0 {
		if len(fds) == 0 {
			return nil
		}
		err := s.send(message, fds)
		if err == nil {
			s.queued++
		}
		return err
	}
	p, open := some[0], false
	err := p.with(func(pidfd int) error {
		open = true
		tag := s.all[p]
		message = binary.BigEndian.AppendUint32(message, uint32(p.id.PID))
		message = binary.BigEndian.AppendUint64(message, p.id.StartTime)
		return s.append(some[1:], append(message, tag[:]...), append(fds, pidfd))
	})
	if !open {
		delete(s.all, p)
		return s.append(some[1:], message, fds)
	}
	return err
}

func (s *Store) send(message []byte, fds []int) error {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	return s.with(func(fd int) error {
		_, err := retry(func() (int, error) { return 0, unix.Sendmsg(fd, message, rights, nil, unix.MSG_DONTWAIT) })
		return os.NewSyscallError("sendmsg", err)
	})
}

// peek returns the first message, with descriptors of its own, and leaves it in the queue.
func (s *Store) peek() (message []byte, fds []int, err error) {
	message, control := make([]byte, maxEntries*entryBytes), make([]byte, unix.CmsgSpace(4*maxEntries))
	err = s.with(func(fd int) error {
		var n, controlBytes int
		_, err := retry(func() (int, error) {
			var err error
			n, controlBytes, _, _, err = unix.Recvmsg(fd, message, control, unix.MSG_PEEK|unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
			return 0, err
		})
		if err != nil {
			return os.NewSyscallError("recvmsg", err)
		}
		message, control = message[:n], control[:controlBytes]
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, nil, fmt.Errorf("control message: %w", err)
	}
	for i := range messages {
		if some, err := unix.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, some...)
		}
	}
	return message, fds, nil
}

// drop removes messages from the head of the queue.
func (s *Store) drop(n int) error {
	return s.with(func(fd int) error {
		for range n {
			_, err := retry(func() (int, error) {
				// The kernel closes the descriptors of a message for which there is no room.
				_, _, _, _, err := unix.Recvmsg(fd, make([]byte, 1), nil, unix.MSG_DONTWAIT)
				return 0, err
			})
			if err != nil {
				return os.NewSyscallError("recvmsg", err)
			}
		}
		return nil
	})
}

// with calls f with the descriptor of the socket.
func (s *Store) with(f func(fd int) error) error {
	raw, err := s.file.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { inner = f(int(fd)) })
	return errors.Join(err, inner)
}
