package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"sync"

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

// runner is go-plugin's seam for a process that this leader starts.
type runner struct {
	untranslated
	cmd    *exec.Cmd
	stdout io.ReadCloser
	exited chan struct{} // closed when the process was waited for
	once   sync.Once
	err    error // of Wait
}

var _ prunner.Runner = (*runner)(nil)

func newRunner(cmd *exec.Cmd) *runner { return &runner{cmd: cmd, exited: make(chan struct{})} }

func (r *runner) Start(context.Context) error {
	var err error
	if r.stdout, err = r.cmd.StdoutPipe(); err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	if err := r.cmd.Start(); err != nil {
		return fmt.Errorf("start worker: %w", err)
	}
	return nil
}

// reap waits for the process, once.
func (r *runner) reap() {
	r.once.Do(func() {
		if r.cmd.Process != nil {
			r.err = r.cmd.Wait()
		}
		close(r.exited)
	})
	<-r.exited
}

func (r *runner) Wait(context.Context) error { r.reap(); return r.err }

func (r *runner) Kill(context.Context) error {
	if r.cmd.Process == nil {
		return nil
	}
	return r.cmd.Process.Kill()
}

// end makes sure that the process is gone, and returns its exit status: -1
// when there was none or a signal ended it.
func (r *runner) end() int {
	if r.cmd.Process == nil {
		return -1
	}
	_ = r.cmd.Process.Kill()
	r.reap()
	var exit *exec.ExitError
	if errors.As(r.err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

func (r *runner) Stdout() io.ReadCloser { return r.stdout }

// Stderr is empty: a worker's standard error does not pass through the
// leader, which may die before it.
func (r *runner) Stderr() io.ReadCloser { return io.NopCloser(strings.NewReader("")) }

func (r *runner) Name() string                    { return "dynast worker" }
func (r *runner) Diagnose(context.Context) string { return "" }

func (r *runner) ID() string {
	if r.cmd.Process == nil {
		return ""
	}
	return strconv.Itoa(r.cmd.Process.Pid)
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
