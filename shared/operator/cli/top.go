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
		return Top(ctx, cfg, os.Stdin, os.Stdout)
	})
	return cmd
}

// Top runs the terminal dashboard until the user quits or ctx ends.
func Top(ctx context.Context, cfg *config.Config, in, out *os.File) error {
	if !term.IsTerminal(in) || !term.IsTerminal(out) {
		return errors.New("top: standard input or output is not a terminal: use 'dynast tree --watch' instead")
	}
	dir, _, _, err := openTree(ctx, cfg.DataDir)
	if err != nil {
		return err
	}
	c := &watched{dir: dir, cfg: cfg, events: events.NewReader(dir.Path())}
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
	dir *datadir.Dir
	cfg *config.Config

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
	if err := askHosts(ctx, w.cfg.DataDir, hosts.PathList, nil, &l, lookTimeout); err != nil {
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
	return said(func(out *bytes.Buffer) error { return Promote(ctx, w.cfg.DataDir, to, out) })
}

func (w *watched) Scale(ctx context.Context, by int) (string, error) {
	return said(func(out *bytes.Buffer) error {
		s, err := scale(ctx, w.cfg.DataDir, by, true)
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
	err := Act(ctx, w.cfg.DataDir, req, waiting{action: action}, io.Discard)
	return fmt.Sprintf("%s %s: accepted", action, instance), err
}

// Output reads files, so it also works without a leader. But only a leader knows where the logs of
// members are if it was started with other flags than this command.
func (w *watched) Output(ctx context.Context, name string, lines int) ([]string, error) {
	q := logview.Query{Services: w.dir.Services(), Names: []string{name}}
	if _, err := roster.ParseAddress(name); err == nil {
		if q, err = whereLogsAre(ctx, w.cfg, io.Discard); err != nil {
			return nil, err
		}
		q.Addresses = []string{name}
	}
	q.Tail = lines
	v := logview.New(q)
	defer v.Close()
	var out []string
	err := v.Show(ctx, func(e *logview.Entry) error {
		at := e.At.Local().Format("15:04:05.000 ")
		if e.Instance != "" {
			out = append(out, at+e.Message)
			return nil
		}
		_, text, _ := strings.Cut(e.Text(), " ") // the time has a date
		out = append(out, strings.Split(at+strings.Replace(text, " address="+name, "", 1), "\n")...)
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
