package web

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzFirstBytes: whatever a connection begins with, and however it is cut into pieces, it goes
// to the side of its protocol, and every byte can still be read.
func FuzzFirstBytes(f *testing.F) {
	f.Add([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), uint8(1))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), uint8(2))
	f.Add([]byte("PR"), uint8(1))
	f.Add([]byte("PUT /"), uint8(1))
	f.Add([]byte{0x16, 3, 1}, uint8(0))
	f.Add([]byte{}, uint8(0))
	f.Fuzz(func(t *testing.T, data []byte, cut uint8) {
		if len(data) > 4096 { // more than a socket is sure to take at once
			data = data[:4096]
		}
		here, there := socketPair(t)
		defer here.Close()
		go func() {
			defer there.Close()
			n := min(int(cut), len(data))
			_, _ = there.Write(data[:n])
			_, _ = there.Write(data[n:])
		}()
		is, err := beginsWith(here, preface)
		undecided := len(data) < len(preface) && bytes.HasPrefix(preface, data)
		switch {
		case undecided && !errors.Is(err, io.EOF):
			t.Fatalf("%q says nothing, and it was %t, %v", data, is, err)
		case undecided:
			return
		case err != nil:
			t.Fatalf("%q: %v", data, err)
		case is != bytes.HasPrefix(data, preface):
			t.Fatalf("%q: %t", data, is)
		}
		if rest, err := io.ReadAll(here); err != nil || !bytes.Equal(rest, data) {
			t.Fatalf("%q was sent, %q is left to be read, %v", data, rest, err)
		}
	})
}

func socketPair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conns := make([]net.Conn, 2)
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "pair")
		conns[i], err = net.FileConn(file)
		_ = file.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	return conns[0], conns[1]
}
