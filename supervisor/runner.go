package supervisor

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	prunner "github.com/hashicorp/go-plugin/runner"

	"github.com/dynast-io/dynast/supervisor/process"
)

// untranslated is for processes that share the file system of this process.
type untranslated struct{}

func (untranslated) PluginToHost(network, addr string) (string, string, error) {
	return network, addr, nil
}

func (untranslated) HostToPlugin(network, addr string) (string, string, error) {
	return network, addr, nil
}

// runner implements go-plugin's interface for a process that this leader starts.
type runner struct {
	untranslated
	*process.Child
}

var _ prunner.Runner = runner{}

func (r runner) Start(context.Context) error {
	if err := r.Child.Start(); err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	return nil
}

func (r runner) Wait(context.Context) error      { return r.Child.Wait() }
func (r runner) Kill(context.Context) error      { return r.Child.Kill() }
func (r runner) Stdout() io.ReadCloser           { return r.Child.Stdout() }
func (r runner) Name() string                    { return "dynast worker" }
func (r runner) Diagnose(context.Context) string { return "" }

// Stderr is empty: a worker writes to the first leader's standard error directly. It must not
// write through this leader, which may die first.
func (r runner) Stderr() io.ReadCloser { return io.NopCloser(strings.NewReader("")) }

func (r runner) ID() string {
	if pid := r.PID(); pid != 0 {
		return strconv.Itoa(pid)
	}
	return ""
}

// attached implements go-plugin's interface for a process that another leader started.
type attached struct {
	untranslated
	*process.Adopted
}

var _ prunner.AttachedRunner = attached{}

func (a attached) Kill(context.Context) error { return a.Adopted.Kill() }
func (a attached) ID() string                 { return strconv.Itoa(a.Identity().PID) }
