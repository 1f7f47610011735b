package proc

import (
	"net"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

func TestListeningSocket(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	address, port := l.Addr().String(), l.Addr().(*net.TCPAddr).Port
	cmd := exec.Command("cat")
	cmd.ExtraFiles = []*os.File{file}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		_ = cmd.Wait()
	}()
	// Only the other process has the socket now.
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	id, err := Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	find := func(port int) *os.File {
		t.Helper()
		f, err := ListeningSocket(id, func(a unix.Sockaddr) bool {
			in4, ok := a.(*unix.SockaddrInet4)
			return ok && in4.Port == port
		})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	if f := find(port + 1); f != nil {
		t.Error("found a socket with another address")
	}
	f := find(port)
	if f == nil {
		t.Fatal("found no socket")
	}
	defer f.Close()
	again, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	accepted, err := again.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = accepted.Close()
}
