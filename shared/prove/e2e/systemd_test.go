package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/observe/tree"
)

// word is a message to the service manager, with the pid of its sender as the kernel reports it.
type word struct {
	pid  int
	text string
}

// manager is a service manager's notify socket.
type manager struct {
	path string
	mu   sync.Mutex
	all  []word
}

func newManager(t *testing.T) *manager {
	t.Helper()
	dir, err := os.MkdirTemp("", "n") // a short name, because the path of a socket has a limited length
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{path: filepath.Join(dir, "n")}
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := c.SyscallConn()
	if err == nil {
		var inner error
		err = raw.Control(func(fd uintptr) { inner = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
		if err == nil {
			err = inner
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); m.listen(c) }()
	t.Cleanup(func() { c.Close(); <-done; os.RemoveAll(dir) })
	return m
}

func (m *manager) listen(c *net.UnixConn) {
	b, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	for {
		n, on, _, _, err := c.ReadMsgUnix(b, oob)
		if err != nil {
			return
		}
		w := word{text: string(b[:n])}
		if msgs, err := unix.ParseSocketControlMessage(oob[:on]); err == nil && len(msgs) > 0 {
			if cred, err := unix.ParseUnixCredentials(&msgs[0]); err == nil {
				w.pid = int(cred.Pid)
			}
		}
		m.mu.Lock()
		m.all = append(m.all, w)
		m.mu.Unlock()
	}
}

func (m *manager) words() []word {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.all)
}

// from waits for a message of this process that begins with the text.
func (m *manager) from(t *testing.T, pid int, prefix string) word {
	t.Helper()
	var found word
	eventually(t, fmt.Sprintf("%q from %d", prefix, pid), func() bool {
		for _, w := range m.words() {
			if w.pid == pid && strings.HasPrefix(w.text, prefix) {
				found = w
				return true
			}
		}
		return false
	})
	return found
}

// service starts the leader as a service manager would. A shell sets the variables that name its
// pid, and then becomes the leader.
func (c *cluster) service(m *manager, files []*os.File, script string, args ...string) *exec.Cmd {
	c.t.Helper()
	cmd := exec.Command("/bin/sh", append([]string{"-c", script + `; exec "$0" "$@"`, binary, "up", "--config", c.config}, args...)...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+m.path)
	cmd.Stderr, cmd.ExtraFiles = c.logs, files
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	if id, err := proc.Identify(cmd.Process.Pid); err == nil {
		c.note(id)
	}
	go func() { _ = cmd.Wait() }()
	return cmd
}

// TestLeadersNotifyTheServiceManager: each leader reports its state to the service manager and in
// the ready file. Processes that do not lead report nothing.
func TestLeadersNotifyTheServiceManager(t *testing.T) {
	c, sd := newCluster(t), newManager(t)
	ready := filepath.Join(t.TempDir(), "ready")
	if err := os.WriteFile(ready, []byte("left by a crash"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := c.service(sd, nil, `export WATCHDOG_USEC=400000 WATCHDOG_PID=$$`, "--ready-file", ready)
	first := sd.from(t, cmd.Process.Pid, "READY=1")
	// Ready means that a client is served immediately.
	cl := c.dial()
	put(t, cl, "sd/1", "x")
	for _, want := range []string{fmt.Sprintf("MAINPID=%d", cmd.Process.Pid), "STATUS=leader " + c.host, c.client} {
		if !strings.Contains(first.text, want) {
			t.Errorf("the message %q does not contain %q", first.text, want)
		}
	}
	readyNames(t, ready, cmd.Process.Pid, c)
	before := c.full()
	eventually(t, "the status counts both followers", func() bool {
		return slices.ContainsFunc(sd.words(), func(w word) bool { return strings.Contains(w.text, "2 followers (2 in sync)") })
	})
	sd.from(t, cmd.Process.Pid, "WATCHDOG=1")
	if code, out := c.run("up", "--config", c.config, "--ready-file", ready); code != 3 {
		t.Errorf("up beside a running leader: exit code %d, want 3\n%s", code, out)
	}
	readyNames(t, ready, cmd.Process.Pid, c) // the refused process did not change the file

	c.signal(leaderOf(before), syscall.SIGKILL)
	after := c.wait("another member leads", func(t *tree.Tree) bool { return t.Leader != before.Leader })
	heir := leaderOf(after)
	sd.from(t, heir.PID, fmt.Sprintf("MAINPID=%d", heir.PID))
	sd.from(t, heir.PID, "READY=1")
	sd.from(t, heir.PID, "WATCHDOG=1")
	eventually(t, "the ready file names the heir", func() bool {
		raw, err := os.ReadFile(ready)
		return err == nil && strings.Contains(string(raw), fmt.Sprintf("PID=%d\n", heir.PID))
	})
	c.full()
	if code, out := c.run("stop", "--data-dir", c.dir); code != 0 {
		t.Fatalf("stop: exit code %d\n%s", code, out)
	}
	sd.from(t, heir.PID, "STOPPING=1")
	for _, w := range sd.words() {
		if w.pid != cmd.Process.Pid && w.pid != heir.PID {
			t.Errorf("pid %d never led, but it sent %q", w.pid, w.text)
		}
		if w.pid == cmd.Process.Pid && strings.HasPrefix(w.text, "STOPPING") {
			t.Errorf("the killed leader sent %q", w.text)
		}
	}
	if _, err := os.Stat(ready); !os.IsNotExist(err) {
		t.Errorf("the ready file is still there after the cluster stopped: %v", err)
	}
}

func readyNames(t *testing.T, file string, pid int, c *cluster) {
	t.Helper()
	var raw []byte
	eventually(t, "the ready file names the leader", func() bool {
		var err error
		raw, err = os.ReadFile(file)
		return err == nil && strings.Contains(string(raw), fmt.Sprintf("PID=%d\n", pid))
	})
	if !strings.Contains(string(raw), "CLIENT="+c.client+"\n") {
		t.Errorf("the ready file does not name the client address:\n%s", raw)
	}
}

// TestSocketActivation: clients are served on the service manager's socket, including those that
// connected before the start. Later leaders use it too. The configured address is not used.
func TestSocketActivation(t *testing.T) {
	c, sd := newCluster(t), newManager(t)
	l := listen(t, "127.0.0.1:0")
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	configured := c.client
	c.client = l.Addr().String()
	early := make(chan error, 1)
	cl := c.dial()
	go func() {
		_, err := cl.Put(testContext(t), "early", "x")
		early <- err
	}()
	cmd := c.service(sd, []*os.File{file}, `export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=clients`)
	if err := <-early; err != nil {
		t.Errorf("the put of a client that connected before the start: %v", err)
	}
	before := c.full()
	if before.Client != c.client {
		t.Errorf("the tree names the client address %s, want %s", before.Client, c.client)
	}
	if conn, err := net.DialTimeout("tcp", configured, time.Second); err == nil {
		conn.Close()
		t.Errorf("a process listens on the configured address %s", configured)
	}
	for _, m := range before.Members {
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", m.PID))
		if err != nil {
			t.Fatal(err)
		}
		if m.PID != cmd.Process.Pid && strings.Contains(string(env), "LISTEN_") {
			t.Errorf("the environment of follower %s names sockets that it does not have", m.Address)
		}
	}
	c.kill(leaderOf(before))
	put(t, cl, "late", "x")
	if resp, err := cl.Get(testContext(t), "", clientv3.WithPrefix()); err != nil || len(resp.Kvs) != 2 {
		t.Errorf("want both keys: %v, %v", resp, err)
	}
}
