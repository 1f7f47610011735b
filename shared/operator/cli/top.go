package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	tea "charm.land/bubbletea/v2"
	"github.com/spf13/cobra"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/observe/events"
	"github.com/dynast-io/dynast/shared/observe/logview"
	"github.com/dynast-io/dynast/shared/observe/ps"
	"github.com/dynast-io/dynast/shared/observe/tree"
	"github.com/dynast-io/dynast/shared/operator/term"
	"github.com/dynast-io/dynast/shared/operator/top"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

func (a *App) topCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "top", Short: "Show a cluster live in the terminal, with keys that change it", Args: cobra.NoArgs,
	}
	c := a.WithCluster(cmd)
	c.run(cmd, func(ctx context.Context, cfg *config.Config, _ []string) error {
		return Top(ctx, cfg.DataDir, os.Stdin, os.Stdout)
	})
	return cmd
}

// Top runs the terminal dashboard until the user quits or ctx ends.
func Top(ctx context.Context, dataDir string, in, out *os.File) error {
	if !term.IsTerminal(in) || !term.IsTerminal(out) {
		return errors.New("top: standard input or output is not a terminal: use 'dynast tree --watch' instead")
	}
	dir, _, _, err := openTree(ctx, dataDir)
	if err != nil {
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

// watched gives the terminal dashboard access to the cluster of a data directory.
type watched struct {
	dir     *datadir.Dir
	dataDir string

	// A request may still be running when the program ends, so mu protects events.
	mu     sync.Mutex
	events *events.Reader // nil after close
}

func (w *watched) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events.Close()
	w.events = nil
}

var _ top.Cluster = (*watched)(nil)

func (w *watched) State(ctx context.Context) (*tree.Tree, *ps.Report, error) {
	p, err := readPicture(ctx, w.dir, true)
	return p.tree, p.services, err
}

func (w *watched) Hosts(ctx context.Context) (*hosts.List, error) {
	if !w.dir.ManyHosts() {
		return nil, nil
	}
	var l hosts.List
	if err := askHosts(ctx, w.dataDir, hosts.PathList, nil, &l, lookTimeout); err != nil {
		return nil, err
	}
	return &l, nil
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
	return said(func(out *bytes.Buffer) error {
		s, err := scale(ctx, w.dataDir, by, true)
		if err != nil {
			return err
		}
		return s.Render(out)
	})
}

// Kill kills the process of a member. It asks the leader for the pid first, so that it does not
// kill another process that got the pid later.
func (w *watched) Kill(ctx context.Context, address string) (string, error) {
	m, _, err := killMember(ctx, w.dir, address)
	return fmt.Sprintf("killed %s (pid %d)", address, m.PID), err
}

// Act does not wait until the instance has followed, because the screen shows that.
func (w *watched) Act(ctx context.Context, action member.Action, instance string) (string, error) {
	req := &wire.ActRequest{Action: string(action), Names: []string{instance}}
	err := Act(ctx, w.dataDir, req, waiting{action: action}, io.Discard)
	return fmt.Sprintf("%s %s: accepted", action, instance), err
}

// Output reads the files of the instance, so it also works without a leader.
func (w *watched) Output(ctx context.Context, instance string, lines int) ([]string, error) {
	v := logview.New(logview.Query{Services: w.dir.Services(), Names: []string{instance}, Tail: lines})
	defer v.Close()
	var out []string
	err := v.Show(ctx, func(e *logview.Entry) error {
		out = append(out, e.At.Format("15:04:05.000 ")+e.Message)
		return nil
	})
	return out, err
}

// said runs f and returns what it printed.
func said(f func(*bytes.Buffer) error) (string, error) {
	var out bytes.Buffer
	err := f(&out)
	return strings.TrimSpace(out.String()), err
}
