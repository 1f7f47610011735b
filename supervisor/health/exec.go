package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// execGrace is how long an attempt waits for the rest of the output after the command has
	// ended, and for the death of the command after it was killed. A descendant may keep the
	// output open, and a process in an uninterruptible sleep does not die.
	execGrace = 100 * time.Millisecond
	// maxLineRunes bounds what a message quotes.
	maxLineRunes = 200
)

// probeExec runs a command in a process group of its own. When ctx ends, the group is killed.
func probeExec(ctx context.Context, argv []string, t Target) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd, err := startCommand(argv, t, w)
	_ = w.Close()
	if err != nil {
		return errors.Join(err, r.Close())
	}
	var out tail
	drained, exited := make(chan struct{}), make(chan struct{})
	go func() {
		_, _ = io.Copy(&out, r)
		close(drained)
	}()
	go func() {
		awaitExit(cmd.Process.Pid)
		close(exited)
	}()
	select {
	case <-exited:
		err = cmd.Wait()
	case <-ctx.Done():
		err = killCommand(ctx, cmd, exited)
	}
	if !within(execGrace, drained) {
		_ = r.SetReadDeadline(time.Now())
	}
	<-drained
	_ = r.Close()
	if line := out.lastLine(); err != nil && line != "" {
		return fmt.Errorf("%w: %s", err, line)
	}
	return err
}

// errKilled is not a context.DeadlineExceeded, so that Probe shows the output of the command.
var errKilled = errors.New("killed at the timeout")

// killCommand kills the group of a command that may still run. The command has not been waited
// for yet. Therefore no other process can have got its pid, which is also the id of the group.
func killCommand(ctx context.Context, cmd *exec.Cmd, exited <-chan struct{}) error {
	_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	if within(execGrace, exited) {
		_ = cmd.Wait()
	} else {
		go func() {
			<-exited
			_ = cmd.Wait()
		}()
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return errKilled
	}
	return ctx.Err()
}

func within(d time.Duration, done <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// awaitExit returns when a child has ended, and leaves it to be waited for.
func awaitExit(pid int) {
	for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
}

func startCommand(argv []string, t Target, out *os.File) (*exec.Cmd, error) {
	path, err := find(argv[0], t)
	if err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{
		Path: path, Args: argv, Dir: t.Dir,
		Env:    append([]string{}, t.Env...), // exec.Cmd replaces nil with the environment of dynast
		Stdout: out, Stderr: out,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Credential: t.Credential},
	}
	if err := cmd.Start(); err != nil {
		// The kernel reports a missing directory as if the command were missing.
		if _, e := os.Stat(t.Dir); t.Dir != "" && e != nil {
			return nil, fmt.Errorf("working directory: %w", e)
		}
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			return nil, fmt.Errorf("cannot start: %w", e.Err)
		}
		return nil, err
	}
	return cmd, nil
}

// find looks for a command in the PATH of the program.
func find(name string, t Target) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	var dirs string
	for _, variable := range t.Env {
		if value, ok := strings.CutPrefix(variable, "PATH="); ok {
			dirs = value
		}
	}
	for _, dir := range filepath.SplitList(dirs) {
		path := filepath.Join(dir, name)
		if !filepath.IsAbs(path) {
			path = filepath.Join(t.Dir, path)
		}
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("not found in PATH (%q): %w", dirs, fs.ErrNotExist)
}

// tail keeps the end of an output.
type tail struct{ b []byte }

const tailBytes = 1 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p[max(0, len(p)-tailBytes):]...)
	t.b = t.b[max(0, len(t.b)-tailBytes):]
	return len(p), nil
}

// lastLine returns the last line that is not blank.
func (t *tail) lastLine() string {
	text := bytes.TrimSpace(t.b)
	return printable(string(text[bytes.LastIndexByte(text, '\n')+1:]), maxLineRunes)
}
