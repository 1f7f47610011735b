package e2e

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/observe/tree"
)

// screen is a command in its own terminal, and its output.
type screen struct {
	cmd      *exec.Cmd
	terminal *os.File
	mu       sync.Mutex
	printed  bytes.Buffer
	ended    chan error
}

func (c *cluster) terminal(args ...string) *screen {
	c.t.Helper()
	cmd := c.command(args...)
	cmd.Stderr = nil
	cmd.Env = append(os.Environ(), "TERM=xterm-256color", "NO_COLOR=")
	return c.screen(cmd)
}

// screen starts a command in its own terminal.
func (c *cluster) screen(cmd *exec.Cmd) *screen {
	c.t.Helper()
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 30, Cols: 120})
	if err != nil {
		c.t.Fatal(err)
	}
	keepOutput(c.t, terminal)
	s := &screen{cmd: cmd, terminal: terminal, ended: make(chan error, 1)}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := terminal.Read(buf)
			s.mu.Lock()
			s.printed.Write(buf[:n])
			s.mu.Unlock()
			if err != nil { // EIO: the process has ended
				s.ended <- cmd.Wait()
				return
			}
		}
	}()
	c.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = terminal.Close()
	})
	return s
}

// keepOutput makes Ctrl-C keep the output that the test has not read yet. By default, the kernel
// discards it.
func keepOutput(t *testing.T, terminal *os.File) {
	t.Helper()
	raw, err := terminal.SyscallConn() // Fd would make reading block, also after Close
	if err != nil {
		t.Fatal(err)
	}
	var done error
	err = raw.Control(func(fd uintptr) {
		attr, err := unix.IoctlGetTermios(int(fd), unix.TCGETS)
		if err == nil {
			attr.Lflag |= unix.NOFLSH
			err = unix.IoctlSetTermios(int(fd), unix.TCSETS, attr)
		}
		done = err
	})
	if err := errors.Join(err, done); err != nil {
		t.Fatal(err)
	}
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.printed.String()
}

// repaint makes a program draw its whole screen, by changing the width of the terminal. Otherwise the
// program sends only the characters that differ from those on the screen, and a text is in pieces.
func (s *screen) repaint(t *testing.T) {
	t.Helper()
	size, err := pty.GetsizeFull(s.terminal)
	if err == nil {
		size.Cols ^= 1
		err = pty.Setsize(s.terminal, size)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (s *screen) press(t *testing.T, keys string) {
	t.Helper()
	if _, err := io.WriteString(s.terminal, keys); err != nil {
		t.Fatal(err)
	}
}

// TestTop runs the terminal dashboard in a terminal through a takeover. A key kills a member
// after a question, and the terminal is restored at the end.
func TestTop(t *testing.T) {
	c := start(t)
	c.traffic()
	s := c.terminal("top", "--config", c.config)
	shows := func(what string) {
		t.Helper()
		painted := time.Now()
		eventually(t, what+" on the screen", func() bool {
			if strings.Contains(s.text(), what) {
				return true
			}
			if time.Since(painted) > 300*time.Millisecond {
				s.repaint(t)
				painted = time.Now()
			}
			return false
		})
	}
	first := c.full()
	shows("REQUESTS/S")
	shows(first.Leader)
	shows("\x1b[?1049h") // the alternate screen
	shows("keys  ")
	s.press(t, "l")
	shows("LOG OF ")
	s.press(t, "lK")
	shows("Kill " + first.Leader)
	s.press(t, "y")
	now := c.wait("the next leader has two followers in sync", func(t *tree.Tree) bool { return t.Leader != first.Leader && count(t, "in_sync") == 2 })
	if !c.gone(leaderOf(first)) {
		t.Error("the old leader is still alive")
	}
	shows("killed " + first.Leader)
	shows("▲")
	s.press(t, "p")
	shows("over to " + now.Heir)
	s.press(t, "y")
	c.wait("the heir leads", func(t *tree.Tree) bool { return t.Leader == now.Heir })
	s.press(t, "?")
	shows("scroll a log")
	s.press(t, "?")
	// A stopped process keeps its connections open and answers nothing. Followers would take over, so
	// all are stopped.
	last := c.full()
	for _, m := range append(followersOf(last), leaderOf(last)) {
		c.signal(m, syscall.SIGSTOP)
	}
	shows("NO LEADER ANSWERS since")
	s.press(t, "K")
	shows("nothing can be changed while no leader answers")
	for _, m := range append(followersOf(last), leaderOf(last)) {
		c.signal(m, syscall.SIGCONT)
	}
	s.press(t, "q")
	if err := <-s.ended; err != nil {
		t.Errorf("top: %v\n%s", err, tail(s.text(), 5000))
	}
	if out := s.text(); !strings.Contains(out, "\x1b[?1049l") || !strings.Contains(out, "\x1b[?25h") {
		t.Errorf("top did not restore the terminal: %q", tail(out, 300))
	}
}

// TestTreeInATerminal: the tree is coloured and redrawn in place, and the terminal is restored at
// the end.
func TestTreeInATerminal(t *testing.T) {
	c := start(t)
	s := c.terminal("tree", "--config", c.config, "--watch")
	eventually(t, "the output contains two trees", func() bool { return strings.Count(s.text(), "PROCESS") >= 2 })
	s.press(t, "\x03") // Ctrl-C
	if err := <-s.ended; err != nil {
		t.Errorf("tree --watch returned an error after an interrupt: %v", err)
	}
	out := s.text()
	for _, want := range []string{"\x1b[?1049h", "\x1b[H", "\x1b[32mserving", "\x1b[?1049l", "\x1b[?25h"} {
		if !strings.Contains(out, want) {
			t.Errorf("the output does not contain %q: %q", want, out)
		}
	}
	if strings.HasSuffix(strings.TrimSpace(out), "serving") {
		t.Error("the output ends in the middle of a tree")
	}
}

// TestTopNeedsATerminal: without a terminal, top prints an error.
func TestTopNeedsATerminal(t *testing.T) {
	c := newCluster(t)
	code, out := c.run("top", "--config", c.config)
	if code != 1 || !strings.Contains(out, "terminal") || !strings.Contains(out, "tree --watch") {
		t.Errorf("top without a terminal: exit code %d, want 1: %s", code, out)
	}
	if _, err := os.Stat(c.dir); err == nil {
		t.Error("top created a data directory")
	}
}
