package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/observe/ps"
	"github.com/dynast-io/dynast/shared/observe/tree"
	"github.com/dynast-io/dynast/shared/operator/hostsview"
	"github.com/dynast-io/dynast/shared/operator/term"
	"github.com/dynast-io/dynast/shared/operator/treeview"
)

func (a *App) treeCommand() *cobra.Command {
	var asJSON, watch bool
	cmd := &cobra.Command{Use: "tree", Short: "Show the processes and services of a running cluster", Args: cobra.NoArgs}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object; with --watch, one per line")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "refresh every second, in place, until interrupted")
	c := a.WithCluster(cmd)
	c.run(cmd, func(ctx context.Context, cfg *config.Config, _ []string) error {
		if watch {
			w := &treeWatch{json: asJSON, out: os.Stdout, terminal: term.IsTerminal(os.Stdout), every: time.Second}
			return w.run(ctx, cfg.DataDir)
		}
		return Tree(ctx, cfg.DataDir, asJSON, os.Stdout, term.StyleOf(os.Stdout))
	})
	return cmd
}

// Tree prints the processes and the services of the cluster in a data directory. The JSON form has
// no services; that of PS has them.
func Tree(ctx context.Context, dataDir string, asJSON bool, out io.Writer, s term.Style) error {
	dir, err := openDir(dataDir)
	if err != nil {
		return err
	}
	p, err := readPicture(ctx, dir, !asJSON)
	if err != nil {
		return err
	}
	if asJSON {
		_, err = fmt.Fprintf(out, "%s\n", p.raw)
		return err
	}
	if err := treeview.Write(out, p.tree, p.services, time.Now(), s); err != nil || !dir.ManyHosts() {
		return err
	}
	return writeHosts(ctx, dataDir, out, s)
}

// writeHosts prints the hosts, and the processes of those hosts that answer.
func writeHosts(ctx context.Context, dataDir string, out io.Writer, s term.Style) error {
	var l hosts.List
	if err := askHosts(ctx, dataDir, hosts.WithTrees(hosts.PathList), nil, &l, lookTimeout); err != nil {
		_, err = fmt.Fprintf(out, "\n%s\n", term.Wrap(fmt.Sprintf("The other hosts cannot be shown: %v", err), s.Columns()))
		return err
	}
	fmt.Fprintln(out)
	if err := hostsview.Write(out, &l, time.Now(), s); err != nil {
		return err
	}
	for _, h := range l.Hosts {
		if h.Name == l.Self || !h.Reachable {
			continue
		}
		fmt.Fprintf(out, "\n%s\n", s.Paint(term.Bold, "On "+h.Name))
		t, err := tree.Decode(h.Status.Tree)
		if err != nil {
			fmt.Fprintln(out, "its leader does not answer at the moment; its engine does")
			continue
		}
		if err := treeview.Write(out, t, nil, time.Now(), s); err != nil {
			return err
		}
	}
	return nil
}

// openTree opens a data directory and reads the tree of the cluster in it.
func openTree(ctx context.Context, dataDir string) (*datadir.Dir, *tree.Tree, []byte, error) {
	dir, err := openDir(dataDir)
	if err != nil {
		return nil, nil, nil, err
	}
	t, raw, err := readTree(ctx, dir)
	return dir, t, raw, err
}

func readTree(ctx context.Context, dir *datadir.Dir) (*tree.Tree, []byte, error) {
	p, err := readPicture(ctx, dir, false)
	return p.tree, p.raw, err
}

// picture is what a leader says about the cluster at one moment.
type picture struct {
	tree     *tree.Tree
	raw      []byte     // tree as the leader encoded it
	services *ps.Report // nil if they were not asked for
}

// readPicture reads the tree and, if services is set, the services. The same leader gives both.
func readPicture(ctx context.Context, dir *datadir.Dir, services bool) (picture, error) {
	var rawTree, rawServices []byte
	err := withLeader(ctx, dir, takeoverPatience, func(ctx context.Context, a *admin) error {
		t, err := a.Tree(ctx, &wire.TreeRequest{})
		if err != nil {
			return err
		}
		rawTree = t.GetJson()
		if !services {
			return nil
		}
		s, err := a.Services(ctx, &wire.ServicesRequest{})
		if status.Code(err) == codes.Unimplemented {
			return nil // the leader is older than services
		}
		rawServices = s.GetJson()
		return err
	})
	if err != nil {
		return picture{}, err
	}
	p := picture{raw: rawTree}
	if p.tree, err = tree.Decode(rawTree); err == nil && rawServices != nil {
		p.services, err = ps.Decode(rawServices)
	}
	return p, err
}

// treeWatch shows the tree repeatedly.
type treeWatch struct {
	json     bool
	out      io.Writer
	style    term.Style
	terminal bool
	every    time.Duration
	last     string // the last tree that was drawn, without an error below it
}

// Control sequences of terminals (ECMA-48 and DEC private modes). enterScreen switches to the
// alternate screen, without cursor and line wrapping. leaveScreen switches back.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l"
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	homeCursor  = "\x1b[H"
	eraseLine   = "\x1b[K"
	eraseBelow  = "\x1b[J"
)

// run returns nil when ctx ends. It returns an error if no cluster runs at the beginning. If the
// cluster stops later, run waits for it to come back.
func (w *treeWatch) run(ctx context.Context, dataDir string) error {
	dir, err := openDir(dataDir)
	if err != nil {
		return err
	}
	p, err := readPicture(ctx, dir, !w.json)
	if err != nil {
		return err
	}
	if w.terminal && !w.json {
		_, _ = io.WriteString(w.out, enterScreen)
		defer func() { _, _ = io.WriteString(w.out, leaveScreen) }()
	}
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	for {
		if err := w.show(p, err); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		p, err = readPicture(ctx, dir, !w.json)
		if ctx.Err() != nil {
			return nil
		}
	}
}

func (w *treeWatch) show(p picture, problem error) error {
	if w.json {
		if problem != nil {
			return nil // print nothing until the cluster answers again
		}
		var line bytes.Buffer
		err := json.Compact(&line, p.raw)
		if err == nil {
			_, err = fmt.Fprintf(w.out, "%s\n", &line)
		}
		return err
	}
	if f, ok := w.out.(*os.File); ok {
		w.style = term.StyleOf(f) // the terminal may have another size now
	}
	note := ""
	if problem != nil {
		note = "\n" + w.style.Paint(term.Red, problem.Error()) + "\n"
	} else {
		var b strings.Builder
		if err := treeview.Write(&b, p.tree, p.services, time.Now(), w.style); err != nil {
			return err
		}
		w.last = b.String()
	}
	text := w.last + note
	if w.terminal {
		text = homeCursor + strings.ReplaceAll(text, "\n", eraseLine+"\n") + eraseBelow
	} else {
		text += "\n"
	}
	_, err := io.WriteString(w.out, text)
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
