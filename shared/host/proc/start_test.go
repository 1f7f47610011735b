package proc

import (
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/prove/testkit"
)

// A listening socket that is passed on stays non-blocking for those who accept from it.
func TestStartLeavesTheModeOfFilesAlone(t *testing.T) {
	l, f := testkit.TCPFile(t)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	p, err := Start("/proc/self/exe", []string{"child", "-test.run=^$"}, os.Environ(), []*os.File{null, null, null, f}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if state, err := p.Wait(); err != nil || !state.Success() {
		t.Fatalf("%v, %v", state, err)
	}
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
		if err != nil || flags&unix.O_NONBLOCK == 0 {
			t.Errorf("flags %x, %v: the socket has become blocking", flags, err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestStartSaysWhatCouldNotBeStarted(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if p, err := Start("/does/not/exist", []string{"x"}, nil, []*os.File{null}, nil); err == nil {
		_, _ = p.Wait()
		t.Error("started")
	}
}
