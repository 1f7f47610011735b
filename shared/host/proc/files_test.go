package proc

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// unixPair returns two connected sockets.
func unixPair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: filepath.Join(t.TempDir(), "s")})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr)); err != nil {
		t.Fatal(err)
	}
	if b, err = l.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	for _, c := range []*net.UnixConn{a, b} {
		c.SetDeadline(time.Now().Add(patience))
	}
	return a, b
}

func TestPassAListenerToAnotherProcess(t *testing.T) {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	a, b := unixPair(t)
	theirs, err := b.File()
	if err != nil {
		t.Fatal(err)
	}
	h := startHelper(t, "accept", theirs)
	theirs.Close()
	payload := strings.Repeat("x", 300_000) // more than a socket buffer
	if err := SendFiles(a, []byte(payload), file); err != nil {
		t.Fatal(err)
	}
	l.Close()
	file.Close()
	// Only the helper can accept now.
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	got, err := io.ReadAll(c)
	if want := fmt.Sprintf("%d %d", h.Process.Pid, len(payload)); err != nil || string(got) != want {
		t.Fatalf("answer %q, %v; want %q", got, err, want)
	}
}

func TestReceivedFilesAreCloseOnExecAndInOrder(t *testing.T) {
	a, b := unixPair(t)
	var sent []*os.File
	for i := range MaxFiles {
		f, err := os.Create(filepath.Join(t.TempDir(), fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fmt.Fprint(f, i)
		sent = append(sent, f)
	}
	// Two messages arrive at once, because a stream has no message boundaries.
	if err := errors.Join(SendFiles(a, nil, sent...), SendFiles(a, []byte("second"), sent[3])); err != nil {
		t.Fatal(err)
	}
	payload, files, err := ReceiveFiles(b, 0)
	if err != nil || len(payload) != 0 || len(files) != MaxFiles {
		t.Fatalf("first: %q, %d files, %v", payload, len(files), err)
	}
	defer closeAll(files)
	for i, f := range files {
		got := make([]byte, 8)
		n, err := f.ReadAt(got, 0)
		if err != io.EOF || string(got[:n]) != fmt.Sprint(i) {
			t.Errorf("file %d holds %q, %v", i, got[:n], err)
		}
		flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("file %d: flags %x, %v", i, flags, err)
		}
	}
	payload, files, err = ReceiveFiles(b, 6)
	if err != nil || string(payload) != "second" || len(files) != 1 {
		t.Fatalf("second: %q, %d files, %v", payload, len(files), err)
	}
	closeAll(files)
}

func TestReceiveFilesRefuses(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	tooMany := make([]*os.File, MaxFiles+1)
	for i := range tooMany {
		tooMany[i] = null
	}
	a, b := unixPair(t)
	if err := SendFiles(a, nil, tooMany...); err == nil {
		t.Error("too many files were sent")
	}
	before := countFDs(os.Getpid())
	if err := SendFiles(a, []byte("long"), null); err != nil {
		t.Fatal(err)
	}
	if _, files, err := ReceiveFiles(b, 3); err == nil || files != nil {
		t.Errorf("a payload that is too long: %v, %v", files, err)
	}
	// A message that ends early, and a message with more files than allowed.
	for _, frame := range []string{"\x00", "\x00\x00\x00\x05abc"} {
		a, b := unixPair(t)
		if _, _, err := a.WriteMsgUnix([]byte(frame), unix.UnixRights(int(null.Fd())), nil); err != nil {
			t.Fatal(err)
		}
		a.Close()
		if _, files, err := ReceiveFiles(b, 100); !errors.Is(err, io.ErrUnexpectedEOF) || files != nil {
			t.Errorf("%q: %v, %v", frame, files, err)
		}
		b.Close()
	}
	a, b = unixPair(t)
	fds := make([]int, MaxFiles+2)
	for i := range fds {
		fds[i] = int(null.Fd())
	}
	if _, _, err := a.WriteMsgUnix([]byte{0, 0, 0, 0}, unix.UnixRights(fds...), nil); err != nil {
		t.Fatal(err)
	}
	if _, files, err := ReceiveFiles(b, 100); err == nil || files != nil {
		t.Errorf("too many files: %v, %v", files, err)
	}
	a.Close()
	b.Close()
	if _, _, err := ReceiveFiles(b, 100); err == nil {
		t.Error("receive on a closed connection")
	}
	if after := countFDs(os.Getpid()); after > before {
		t.Errorf("%d descriptors before, %d after: files were leaked", before, after)
	}
}

func TestPeerUID(t *testing.T) {
	a, _ := unixPair(t)
	pid, uid, err := PeerUID(a)
	if err != nil || pid != os.Getpid() || uid != os.Getuid() {
		t.Errorf("PeerUID = %d, %d, %v", pid, uid, err)
	}
}

// With the last byte the receiver has everything and may close at once. That is no failure of
// the sender.
func TestReceiverClosesAfterTheLastByte(t *testing.T) {
	for range 500 {
		a, b := unixPair(t)
		got := make(chan error, 1)
		go func() {
			_, _, err := ReceiveFiles(b, 100)
			b.Close()
			got <- err
		}()
		if err := SendFiles(a, []byte("request")); err != nil {
			t.Fatalf("send: %v", err)
		}
		if err := <-got; err != nil {
			t.Fatalf("receive: %v", err)
		}
		a.Close()
	}
}
