package proc

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/prove/testkit"
)

func newStoreSocket(t *testing.T) *os.File {
	t.Helper()
	f, err := NewStoreSocket()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// reopen opens a store as the next leader does.
func reopen(t *testing.T, f *os.File, want func(Identity, Tag) bool) (*Store, map[Identity]*Process) {
	t.Helper()
	s, all, err := OpenStore(f, want)
	if err != nil {
		t.Fatal(err)
	}
	out := map[Identity]*Process{}
	for p := range all {
		t.Cleanup(func() { p.Close() })
		out[p.Identity()] = p
	}
	return s, out
}

func everything(Identity, Tag) bool { return true }

func tagOf(n int) (t Tag) {
	binary.BigEndian.PutUint32(t[:], uint32(n))
	return t
}

// helperStore leaves a child behind, whose pidfd is in the store of descriptor 3.
func helperStore(string) error {
	s, _, err := OpenStore(os.NewFile(3, "store"), everything)
	if err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := os.Setenv(helperEnv, "wait"); err != nil {
		return err
	}
	child, err := Start(Executable(), []string{"child"}, os.Environ(), []*os.File{os.Stdin, null, null}, nil)
	if err != nil {
		return err
	}
	p, err := OpenChild(child.Pid)
	if err != nil {
		return err
	}
	if err := s.Add(p, tagOf(7)); err != nil {
		return err
	}
	fmt.Println(child.Pid)
	return nil
}

// The parent dies, and then the child, which is reaped by somebody else. Only the store had its
// pidfd.
func TestStoreTellsTheExitOfAnOrphan(t *testing.T) {
	f := newStoreSocket(t)
	for _, killed := range []bool{false, true} {
		h := startHelper(t, "store", f)
		pid, err := strconv.Atoi(h.line(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := waitExited(h); err != nil {
			t.Fatal(err)
		}
		child := openPID(t, pid)
		want := "exit status 0"
		if killed {
			want = "killed by SIGKILL"
			if err := child.Kill(); err != nil {
				t.Fatal(err)
			}
		} else {
			h.in.Close()
		}
		waitDone(t, child)
		child.Close()
		if !killed { // in the other case it may not be reaped yet
			testkit.Eventually(t, "PID 1 reaps the child", func() bool { return !Exists(child.Identity()) })
		}
		_, all := reopen(t, f, func(id Identity, tag Tag) bool { return id.PID == pid && tag == tagOf(7) })
		p := all[child.Identity()]
		if p == nil || len(all) != 1 {
			t.Fatalf("the store has %v", all)
		}
		waitDone(t, p)
		e, ended := p.Exit()
		if !e.Known && !pidfdInfo(t) {
			t.Skip("the kernel is older than 6.15")
		}
		if !ended || e.String() != want {
			t.Errorf("got %v, want %s", e, want)
		}
	}
}

// A store has each process once, whatever was added, removed and opened again before.
func TestStoreKeepsWhatIsNotRemoved(t *testing.T) {
	f := newStoreSocket(t)
	h := ready(t, "wait")
	s, all := reopen(t, f, everything)
	if len(all) != 0 {
		t.Fatalf("a new store has %v", all)
	}
	// The start times are made up, so that one process is many.
	id, err := Identify(h.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	add := func(n int) *Process {
		pidfd, err := unix.PidfdOpen(id.PID, 0)
		if err != nil {
			t.Fatal(err)
		}
		p, err := newProcess(Identity{PID: id.PID, StartTime: uint64(n)}, pidfd)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		if err := s.Add(p, tagOf(n)); err != nil {
			t.Fatal(err)
		}
		return p
	}
	const kept = 2*maxEntries + 10
	for n := range 5 * kept {
		if p := add(n); n%5 != 0 {
			s.Remove(p)
			p.Close()
		}
	}
	if s.queued > maxQueued+kept/maxEntries {
		t.Errorf("%d messages are in the queue", s.queued)
	}
	before := countFDs(os.Getpid())
	for range 3 {
		next, all, err := OpenStore(f, func(id Identity, tag Tag) bool { return tag == tagOf(int(id.StartTime)) })
		if err != nil {
			t.Fatal(err)
		}
		s = next
		var have []int
		for p, tag := range all {
			if tag != tagOf(int(p.id.StartTime)) {
				t.Errorf("%v has the tag %x", p.id, tag)
			}
			have = append(have, int(p.id.StartTime))
			p.Close()
		}
		slices.Sort(have)
		// Those that were removed since the queue was last written anew are still there.
		for n := range kept {
			if !slices.Contains(have, 5*n) {
				t.Errorf("%d is missing", 5*n)
			}
		}
		if slices.Contains(have, 1) || len(slices.Compact(have)) != len(all) {
			t.Errorf("the store has %v", have)
		}
	}
	if after := countFDs(os.Getpid()); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	if _, all := reopen(t, f, func(id Identity, _ Tag) bool { return id.StartTime < 20 }); len(all) < 4 || len(all) > 16 {
		t.Errorf("%d processes are wanted", len(all))
	}
	if _, all := reopen(t, f, everything); len(all) < 4 || len(all) > 16 {
		t.Errorf("%d processes are left", len(all))
	}
}

// A leader that dies while it opens a store leaves its mark, and messages twice.
func TestStoreWasOpenedHalfway(t *testing.T) {
	f := newStoreSocket(t)
	s, _ := reopen(t, f, everything)
	p := openPID(t, ready(t, "wait").Process.Pid)
	if err := s.Add(p, tagOf(1)); err != nil {
		t.Fatal(err)
	}
	mark := tagOf(99)
	if err := s.send(mark[:], nil); err != nil {
		t.Fatal(err)
	}
	message, fds, err := s.peek()
	if err != nil || len(fds) != 1 {
		t.Fatal(fds, err)
	}
	if err := s.send(message, fds); err != nil {
		t.Fatal(err)
	}
	unix.Close(fds[0])
	s, all := reopen(t, f, everything)
	if len(all) != 1 || all[p.Identity()] == nil || s.queued != 1 {
		t.Errorf("the store has %v in %d messages", all, s.queued)
	}
}

// The socket has an address, but nobody else can send to it.
func TestStoreRefusesStrangers(t *testing.T) {
	f := newStoreSocket(t)
	raw, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var own unix.Sockaddr
	if e := raw.Control(func(fd uintptr) { own, err = unix.Getsockname(int(fd)) }); e != nil || err != nil {
		t.Fatal(e, err)
	}
	stranger, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(stranger)
	if err := unix.Sendto(stranger, make([]byte, entryBytes), unix.MSG_DONTWAIT, own); err != unix.EPERM {
		t.Errorf("a stranger sent a message: %v", err)
	}
	if err := unix.Connect(stranger, own); err != unix.EPERM {
		t.Errorf("a stranger connected: %v", err)
	}
}

func TestStoreInAnotherSocket(t *testing.T) {
	a, _ := unixPair(t)
	f, err := a.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, _, err := OpenStore(f, everything); err == nil {
		t.Error("a store was opened in a stream socket")
	}
}

func BenchmarkStoreOpen1000(b *testing.B) {
	f, err := NewStoreSocket()
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	s, _, err := OpenStore(f, everything)
	if err != nil {
		b.Fatal(err)
	}
	pid := ready(b, "wait").Process.Pid
	for n := range 1000 {
		pidfd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			b.Fatal(err)
		}
		p, err := newProcess(Identity{PID: pid, StartTime: uint64(n)}, pidfd)
		if err != nil {
			b.Fatal(err)
		}
		defer p.Close()
		if err := s.Add(p, Tag{}); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		_, all, err := OpenStore(f, everything)
		if err != nil || len(all) != 1000 {
			b.Fatal(len(all), err)
		}
		for p := range all {
			p.Close()
		}
	}
}

func BenchmarkStoreAdd(b *testing.B) {
	f, err := NewStoreSocket()
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	s, _, err := OpenStore(f, everything)
	if err != nil {
		b.Fatal(err)
	}
	p := openPID(b, ready(b, "wait").Process.Pid)
	for b.Loop() {
		if err := s.Add(p, Tag{}); err != nil {
			b.Fatal(err)
		}
		s.Remove(p)
	}
}
