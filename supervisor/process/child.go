package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/dynast-io/dynast/shared/host/proc"
)

// Command describes the process to start.
type Command struct {
	Path      string
	Argv, Env []string
	Stdin     *os.File
	Stderr    *os.File
	// Extra are the descriptors from 3 on. Standard output is a pipe to Child.
	Extra []*os.File
	Attr  *syscall.SysProcAttr
}

// Child is a process that this process starts. Its methods are safe for concurrent use.
type Child struct {
	Command Command // must not be changed after Start

	mu      sync.Mutex
	process *os.Process // nil before Start
	killed  bool        // Kill was called; if before Start, then Start fails
	stdout  *os.File

	exited chan struct{} // closed when Wait has returned
	once   sync.Once
	state  *os.ProcessState
	err    error // from Wait
}

// NewChild returns a Child that has not been started.
func NewChild(cmd Command) *Child { return &Child{Command: cmd, exited: make(chan struct{})} }

// errKilled says that Kill was called before Start.
var errKilled = errors.New("killed before it started")

// Start starts the process, unless Kill was called before.
func (c *Child) Start() error {
	out, in, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	defer in.Close()
	files := append([]*os.File{c.Command.Stdin, in, c.Command.Stderr}, c.Command.Extra...)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.killed {
		err = errKilled
	} else {
		c.process, err = proc.Start(c.Command.Path, c.Command.Argv, c.Command.Env, files, c.Command.Attr)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("start: %w", err), out.Close())
	}
	c.stdout = out
	return nil
}

// running returns the process, or nil before Start.
func (c *Child) running() *os.Process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.process
}

// PID returns the process's ID, or 0 before Start.
func (c *Child) PID() int {
	if p := c.running(); p != nil {
		return p.Pid
	}
	return 0
}

// Stdout returns the read end of the pipe from the process, or nil before Start.
func (c *Child) Stdout() *os.File {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stdout
}

// reap waits for the process. Only the first call does the waiting.
func (c *Child) reap() {
	c.once.Do(func() {
		if p := c.running(); p != nil {
			c.state, c.err = p.Wait()
			_ = c.stdout.Close()
		}
		close(c.exited)
	})
	<-c.exited
}

// Wait waits until the process has exited. An exit status other than 0 is an error.
func (c *Child) Wait() error {
	c.reap()
	if c.err == nil && c.state != nil && !c.state.Success() {
		return fmt.Errorf("process: %s", c.state)
	}
	return c.err
}

// Kill sends SIGKILL. If it is called before Start, Start fails.
func (c *Child) Kill() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.killed = true
	if c.process == nil {
		return nil
	}
	return c.process.Kill()
}

// End makes sure that the process is gone and returns its exit status. The status is -1 if
// the process never started or a signal ended it.
func (c *Child) End() int {
	_ = c.Kill()
	c.reap()
	if c.state == nil {
		return -1
	}
	return c.state.ExitCode()
}

// Environment returns the environment of this process without the named variables.
func Environment(without ...string) []string {
	return slices.DeleteFunc(os.Environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains(without, name)
	})
}

// Adopted is a process that another process started.
type Adopted struct{ *proc.Process }

// Adopt opens a process. The error is proc.ErrGone if the process is dead.
func Adopt(id proc.Identity) (*Adopted, error) {
	p, err := proc.Open(id)
	if err != nil {
		return nil, fmt.Errorf("adopt: %w", err)
	}
	return &Adopted{p}, nil
}

// Wait waits until the process is dead, and then releases its descriptor.
func (a *Adopted) Wait(ctx context.Context) error {
	select {
	case <-a.Done():
	case <-ctx.Done():
		return ctx.Err()
	}
	return a.Close()
}

// Kill sends SIGKILL. It returns no error if the process is already gone.
func (a *Adopted) Kill() error {
	if err := a.Process.Kill(); err != nil && !errors.Is(err, proc.ErrGone) {
		return err
	}
	return nil
}
