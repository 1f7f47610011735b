package health

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/prove/testkit"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]Message{
		"READY=1":                                  {Ready: true},
		"READY=1\x00":                              {Ready: true},
		"READY=0\nREADY=yes\nready=1\nREADY":       {},
		"READY=1\nSTATUS=serving\nMAINPID=12\n":    {Ready: true, Status: "serving", HasStatus: true, MainPID: 12},
		"STATUS=":                                  {HasStatus: true},
		"STATUS=a=b\x1b[31m\tc\x00\u202ed\xff":     {Status: "a=b [31m c  d?", HasStatus: true},
		"STOPPING=1\nRELOADING=1":                  {Stopping: true, Reloading: true},
		"WATCHDOG=1":                               {Ping: true},
		"WATCHDOG=trigger\nERRNO=2":                {Hung: true, Errno: 2},
		"WATCHDOG_USEC=2000000":                    {WatchdogInterval: 2 * time.Second},
		"EXTEND_TIMEOUT_USEC=1500000":              {Extend: 1500 * time.Millisecond},
		"EXTEND_TIMEOUT_USEC=18446744073709551615": {Extend: 24 * time.Hour},
		"EXTEND_TIMEOUT_USEC=-1\nMAINPID=-5":       {},
		"MAINPID=0\nMAINPID=9999999999":            {},
		"\n\n=\n=1\nFDSTORE=1\n\xff\xfe":           {},
		"STATUS=one\nSTATUS=two":                   {Status: "two", HasStatus: true},
		"STATUS=" + strings.Repeat("ä", 300):       {Status: strings.Repeat("ä", 256), HasStatus: true},
	} {
		if got := Parse([]byte(text)); got != want {
			t.Errorf("Parse(%q)\n got %+v\nwant %+v", text, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"READY=1\nSTATUS=x", "WATCHDOG=trigger\x00", "EXTEND_TIMEOUT_USEC=99999999999999999999", "MAINPID=1\n\n=", "STATUS=\xff\x1b[0m"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := Parse(b)
		if n := utf8.RuneCountInString(m.Status); n > maxStatusRunes || !utf8.ValidString(m.Status) {
			t.Errorf("status of %d runes: %q", n, m.Status)
		}
		if i := strings.IndexFunc(m.Status, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("status is not printable: %q", m.Status)
		}
		if m.MainPID < 0 || m.Errno < 0 || m.PID != 0 {
			t.Errorf("bad number: %+v", m)
		}
		for _, d := range []time.Duration{m.Extend, m.WatchdogInterval} {
			if d < 0 || d > maxDuration {
				t.Errorf("bad duration: %s", d)
			}
		}
		if m.Ready && !strings.Contains(string(b), "READY=1") {
			t.Error("ready without READY=1")
		}
		// What follows on another line does not change what was said before.
		if more := Parse(slices.Concat(b, []byte("\nX=1"))); !strings.HasSuffix(string(b), "\x00") && more != m {
			t.Errorf("an unknown assignment changed\n%+v to\n%+v", m, more)
		}
	})
}

// open opens a notify socket for a test, and sets NOTIFY_SOCKET for the programs of the test.
func open(t *testing.T) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	f, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return f
}

// read reads the socket until the end of the test.
func read(t *testing.T, f *os.File) <-chan Message {
	t.Helper()
	messages := make(chan Message, 100)
	n, err := ReadNotify(f, func(m Message) bool { messages <- m; return true })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return messages
}

func helper(t *testing.T, mode string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), helperEnv+"="+mode)
	cmd.Stderr = os.Stderr
	return cmd
}

// A program reports while no leader runs. The next leader gets the message, with the pid of the
// program, although the program has ended.
func TestMessageWaitsForTheNextLeader(t *testing.T) {
	f := open(t)
	cmd := helper(t, "notify READY=1\nSTATUS=up")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	first := read(t, f)
	if got, want := <-first, (Message{PID: cmd.Process.Pid, Ready: true, Status: "up", HasStatus: true}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// One leader follows another on the same socket, and no message is lost between them.
func TestLeadersFollowEachOther(t *testing.T) {
	f := open(t)
	c := dial(t)
	for round := range 20 {
		messages := make(chan Message, 1)
		n, err := ReadNotify(f, func(m Message) bool { messages <- m; return true })
		if err != nil {
			t.Fatal(err)
		}
		if round > 0 {
			if m := <-messages; m.MainPID != round {
				t.Fatalf("round %d: got %+v", round, m)
			}
		}
		n.Close()
		send(t, c, "MAINPID="+strconv.Itoa(round+1))
	}
}

// A leader that dies or is replaced before it has saved a message leaves it to the next one,
// together with those that follow.
func TestMessageThatIsNotAcceptedWaits(t *testing.T) {
	f := open(t)
	c := dial(t)
	send(t, c, "MAINPID=1")
	send(t, c, "MAINPID=2")
	for range 3 {
		seen := make(chan Message, 2)
		n, err := ReadNotify(f, func(m Message) bool { seen <- m; return false })
		if err != nil {
			t.Fatal(err)
		}
		if m := <-seen; m.MainPID != 1 || m.PID != os.Getpid() {
			t.Errorf("got %+v", m)
		}
		n.Close()
		if len(seen) > 0 {
			t.Errorf("got %+v after a message that was not accepted", <-seen)
		}
	}
	messages := read(t, f)
	for want := 1; want <= 2; want++ {
		if m := <-messages; m.MainPID != want {
			t.Errorf("got %+v, want %d", m, want)
		}
	}
}

// Close does not leave a message in the socket that was accepted.
func TestCloseWaitsUntilTheMessageIsRemoved(t *testing.T) {
	f := open(t)
	c := dial(t)
	for range 200 {
		send(t, c, "MAINPID=1")
		seen := make(chan Message, 2)
		n, err := ReadNotify(f, func(m Message) bool { seen <- m; return true })
		if err != nil {
			t.Fatal(err)
		}
		<-seen
		n.Close()
		if len(seen) > 0 {
			t.Fatal("the message came twice")
		}
	}
	messages := read(t, f)
	send(t, c, "MAINPID=2")
	if m := <-messages; m.MainPID != 2 {
		t.Errorf("got %+v, which another reader had accepted", m)
	}
}

func TestBarrierIsAnsweredAfterReport(t *testing.T) {
	f := open(t)
	cmd := helper(t, "barrier")
	_, out := testkit.StartPiped(t, cmd)
	reported, proceed := make(chan Message), make(chan struct{})
	n, err := ReadNotify(f, func(m Message) bool { reported <- m; <-proceed; return true })
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if m := <-reported; !m.Ready || m.PID != cmd.Process.Pid {
		t.Errorf("got %+v", m)
	}
	proceed <- struct{}{}
	<-reported // the barrier itself, whose descriptor is still open
	passed := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(out).ReadString('\n')
		passed <- line
	}()
	select {
	case line := <-passed:
		t.Errorf("the barrier was answered before report returned: %q", line)
	default:
	}
	proceed <- struct{}{}
	if line := <-passed; line != "passed\n" {
		t.Errorf("the program said %q", line)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func dial(t *testing.T) *net.UnixConn {
	t.Helper()
	c, err := dialNotify()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func send(t *testing.T, c *net.UnixConn, text string, files ...int) {
	t.Helper()
	if err := sendFiles(c, text, files...); err != nil {
		t.Fatal(err)
	}
}

// A datagram that is too long is dropped, and as many descriptors as a datagram can carry are
// closed.
func TestBoundsAndDescriptors(t *testing.T) {
	messages := read(t, open(t))
	c := dial(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	all := slices.Repeat([]int{int(w.Fd())}, maxFiles)
	send(t, c, "READY=1\nSTATUS="+strings.Repeat("x", maxMessageBytes), all...)
	send(t, c, "FDSTORE=1", all...)
	send(t, c, "STOPPING=1")
	if m := <-messages; m.Ready || m.Stopping {
		t.Errorf("got %+v before the message with descriptors", m)
	}
	if m := <-messages; !m.Stopping || m.PID != os.Getpid() {
		t.Errorf("got %+v", m)
	}
	w.Close()
	if _, err := r.Read(make([]byte, 1)); err == nil || err.Error() != "EOF" {
		t.Errorf("a descriptor is still open: %v", err)
	}
}

// A member that passes the socket on may set it to blocking mode. Close still ends the reader.
func TestCloseEndsTheReaderOfABlockingSocket(t *testing.T) {
	f := open(t)
	messages := make(chan Message)
	n, err := ReadNotify(f, func(m Message) bool { messages <- m; return true })
	if err != nil {
		t.Fatal(err)
	}
	raw, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var set error
	if err := raw.Control(func(fd uintptr) { set = unix.SetNonblock(int(fd), false) }); err != nil || set != nil {
		t.Fatal(err, set)
	}
	send(t, dial(t), "READY=1")
	<-messages // from here on the reader waits for the next message
	n.Close()
}

func TestNoNotifySocket(t *testing.T) {
	_, f := testkit.TCPFile(t)
	if _, err := ReadNotify(f, func(Message) bool { return true }); err == nil {
		t.Error("reads notifications from a TCP socket")
	}
	taken := open(t)
	if f, err := Listen(os.Getenv("NOTIFY_SOCKET")); err == nil {
		t.Error("opened a socket twice: ", taken.Name(), f.Close())
	}
	name := "@dynast-health-test-" + filepath.Base(t.TempDir()) + strconv.Itoa(os.Getpid())
	abstract, err := Listen(name)
	if err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()
	t.Setenv("NOTIFY_SOCKET", name)
	messages := read(t, abstract)
	send(t, dial(t), "READY=1")
	if m := <-messages; !m.Ready {
		t.Errorf("got %+v", m)
	}
}

// Without a leader the kernel queues a few datagrams and makes the next sender wait. The next
// leader gets all of them in their order, and then there is room again.
func TestFullQueueIsReadByTheNextLeader(t *testing.T) {
	f := open(t)
	c := dial(t)
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	queued := 0
	var full error
	if err := raw.Control(func(fd uintptr) {
		for full == nil && queued < 1e6 {
			if full = unix.Sendmsg(int(fd), []byte("MAINPID="+strconv.Itoa(queued+1)), nil, nil, unix.MSG_DONTWAIT); full == nil {
				queued++
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	if full != unix.EAGAIN || queued < 2 {
		t.Fatalf("%d datagrams, then %v", queued, full)
	}
	messages := read(t, f)
	for i := range queued {
		if m := <-messages; m.MainPID != i+1 || m.PID != os.Getpid() {
			t.Fatalf("message %d of %d: %+v", i+1, queued, m)
		}
	}
	send(t, c, "READY=1")
	if m := <-messages; !m.Ready {
		t.Errorf("got %+v", m)
	}
}
