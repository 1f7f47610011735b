package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"

	tea "charm.land/bubbletea/v2"
	"github.com/spf13/cobra"

	"github.com/dynast-io/dynast/shared/datadir"
	"github.com/dynast-io/dynast/shared/events"
	"github.com/dynast-io/dynast/shared/proc"
	"github.com/dynast-io/dynast/shared/roster"
	"github.com/dynast-io/dynast/shared/term"
	"github.com/dynast-io/dynast/shared/top"
	"github.com/dynast-io/dynast/shared/tree"
)

func (a *App) topCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "top", Short: "Show a running cluster in the terminal, live, with keys to hand over, kill and scale", Args: cobra.NoArgs,
	}
	c := a.WithConfig(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := c.Load()
		if err != nil {
			return err
		}
		return asError(Top(cmd.Context(), cfg.DataDir, os.Stdin, os.Stdout))
	}
	return cmd
}

// Top runs the terminal dashboard until a key or ctx ends it.
func Top(ctx context.Context, dataDir string, in, out *os.File) error {
	if !term.IsTerminal(in) || !term.IsTerminal(out) {
		return errors.New("top needs a terminal; 'dynast tree --watch' works without one")
	}
	dir, err := openDir(dataDir)
	if err != nil {
		return err
	}
	if _, _, err := readTree(ctx, dir); err != nil {
		return err
	}
	c := &watched{dir: dir, dataDir: dataDir, events: events.NewReader(dir.Path())}
	defer c.close()
	p := tea.NewProgram(top.New(c, term.StyleOf(out)), tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out), tea.WithoutSignalHandler())
	_, err = p.Run()
	if ctx.Err() != nil {
		return nil // interrupted
	}
	return err
}

// watched is the cluster of a data directory, for the terminal dashboard.
type watched struct {
	dir     *datadir.Dir
	dataDir string

	// A question may be under way still when the program ends.
	mu     sync.Mutex
	events *events.Reader // nil: closed
}

func (w *watched) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events.Close()
	w.events = nil
}

var _ top.Cluster = (*watched)(nil)

func (w *watched) Tree(ctx context.Context) (*tree.Tree, error) {
	t, _, err := readTree(ctx, w.dir)
	return t, err
}

func (w *watched) Events() ([]events.Event, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.events == nil {
		return nil, nil
	}
	return w.events.Next()
}

func (w *watched) Promote(ctx context.Context, address string) (string, error) {
	to, err := roster.ParseAddress(address)
	if err != nil {
		return "", err
	}
	return said(func(out *bytes.Buffer) error { return Promote(ctx, w.dataDir, to, out) })
}

func (w *watched) Scale(ctx context.Context, by int) (string, error) {
	return said(func(out *bytes.Buffer) error { return Scale(ctx, w.dataDir, by, true, out) })
}

// Kill ends the process that the leader names now, and no other that may have
// got its pid.
func (w *watched) Kill(ctx context.Context, address string) (string, error) {
	t, err := w.Tree(ctx)
	if err != nil {
		return "", err
	}
	for _, m := range t.Members {
		if m.Address != address {
			continue
		}
		id, err := proc.Identify(m.PID)
		if err == nil {
			err = proc.Signal(id, syscall.SIGKILL)
		}
		return fmt.Sprintf("killed %s (pid %d)", address, m.PID), err
	}
	return "", fmt.Errorf("there is no member %s any more", address)
}

// said is what a command prints.
func said(f func(*bytes.Buffer) error) (string, error) {
	var out bytes.Buffer
	err := f(&out)
	return strings.TrimSpace(out.String()), err
}
