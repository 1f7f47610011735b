package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	prunner "github.com/hashicorp/go-plugin/runner"

	"github.com/dynast-io/dynast/shared/proc"
)

// untranslated is for processes that share this one's file system.
type untranslated struct{}

func (untranslated) PluginToHost(network, addr string) (string, string, error) {
	return network, addr, nil
}

func (untranslated) HostToPlugin(network, addr string) (string, string, error) {
	return network, addr, nil
}

// command is what a process is started with: the files are its descriptors 0,
// 2, 3 and so on; its standard output is the runner's.
type command struct {
	path      string
	argv, env []string
	stdin     *os.File
	stderr    *os.File
	extra     []*os.File
	attr      *syscall.SysProcAttr
}

// runner is go-plugin's seam for a process that this leader starts.
type runner struct {
	untranslated
	cmd    command
	stdout *os.File

	mu      sync.Mutex
	process *os.Process // nil before Start
	killed  bool        // also before Start, which then does nothing

	exited chan struct{} // closed when the process was waited for
	once   sync.Once
	state  *os.ProcessState
	err    error // of the wait
}

var _ prunner.Runner = (*runner)(nil)

func newRunner(cmd command) *runner { return &runner{cmd: cmd, exited: make(chan struct{})} }

func (r *runner) Start(context.Context) error {
	out, in, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start worker: %w", err)
	}
	defer in.Close()
	files := append([]*os.File{r.cmd.stdin, in, r.cmd.stderr}, r.cmd.extra...)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.killed {
		err = errKilled
	} else {
		r.process, err = proc.Start(r.cmd.path, r.cmd.argv, r.cmd.env, files, r.cmd.attr)
	}
	if err != nil {
		_ = out.Close()
		return fmt.Errorf("start worker: %w", err)
	}
	r.stdout = out
	return nil
}

var errKilled = errors.New("given up before it began")

// running returns the process, nil when there is none.
func (r *runner) running() *os.Process {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.process
}

// reap waits for the process, once, however many ask.
func (r *runner) reap() {
	r.once.Do(func() {
		if p := r.running(); p != nil {
			r.state, r.err = p.Wait()
			_ = r.stdout.Close()
		}
		close(r.exited)
	})
	<-r.exited
}

func (r *runner) Wait(context.Context) error {
	r.reap()
	if r.err == nil && r.state != nil && !r.state.Success() {
		return fmt.Errorf("worker: %s", r.state)
	}
	return r.err
}

func (r *runner) Kill(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.killed = true
	if r.process == nil {
		return nil
	}
	return r.process.Kill()
}

// end makes sure that the process is gone, and returns its exit status: -1
// when there was none or a signal ended it.
func (r *runner) end() int {
	_ = r.Kill(context.Background())
	r.reap()
	if r.state == nil {
		return -1
	}
	return r.state.ExitCode()
}

func (r *runner) Stdout() io.ReadCloser { return r.stdout }

// Stderr is empty: a worker's standard error does not pass through the
// leader, which may die before it.
func (r *runner) Stderr() io.ReadCloser { return io.NopCloser(strings.NewReader("")) }

func (r *runner) Name() string                    { return "dynast worker" }
func (r *runner) Diagnose(context.Context) string { return "" }

func (r *runner) ID() string {
	if p := r.running(); p != nil {
		return strconv.Itoa(p.Pid)
	}
	return ""
}

// attached is go-plugin's seam for a process that another leader started.
type attached struct {
	untranslated
	process *proc.Process
	pid     int
}

var _ prunner.AttachedRunner = (*attached)(nil)

func (a *attached) Wait(ctx context.Context) error {
	select {
	case <-a.process.Done():
	case <-ctx.Done():
		return ctx.Err()
	}
	return a.process.Close()
}

func (a *attached) Kill(context.Context) error {
	if err := a.process.Kill(); err != nil && !errors.Is(err, proc.ErrGone) {
		return err
	}
	return nil
}

func (a *attached) ID() string { return strconv.Itoa(a.pid) }
