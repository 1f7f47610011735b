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

	"github.com/dynast-io/dynast/shared/datadir"
	"github.com/dynast-io/dynast/shared/term"
	"github.com/dynast-io/dynast/shared/tree"
	"github.com/dynast-io/dynast/shared/wire"
)

func (a *App) treeCommand() *cobra.Command {
	var asJSON, watch bool
	cmd := &cobra.Command{Use: "tree", Short: "Show the processes of a running cluster", Args: cobra.NoArgs}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object (with --watch one a line)")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it again every second, in place, until interrupted")
	c := a.WithConfig(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := c.Load()
		if err != nil {
			return err
		}
		if watch {
			w := &treeWatch{json: asJSON, out: os.Stdout, style: term.StyleOf(os.Stdout), terminal: term.IsTerminal(os.Stdout), every: time.Second}
			return asError(w.run(cmd.Context(), cfg.DataDir))
		}
		return asError(printTree(cmd.Context(), cfg.DataDir, asJSON, os.Stdout, term.StyleOf(os.Stdout)))
	}
	return cmd
}

// Tree prints the processes of the cluster in a data directory.
func Tree(ctx context.Context, dataDir string, asJSON bool, out io.Writer) error {
	return printTree(ctx, dataDir, asJSON, out, term.Style{})
}

func printTree(ctx context.Context, dataDir string, asJSON bool, out io.Writer, s term.Style) error {
	dir, err := openDir(dataDir)
	if err != nil {
		return err
	}
	t, raw, err := readTree(ctx, dir)
	if err != nil {
		return err
	}
	if asJSON {
		_, err = fmt.Fprintf(out, "%s\n", raw)
		return err
	}
	return t.Render(out, time.Now(), s)
}

func readTree(ctx context.Context, dir *datadir.Dir) (*tree.Tree, []byte, error) {
	var raw []byte
	err := withLeader(ctx, dir, takeoverPatience, func(ctx context.Context, a *admin) error {
		resp, err := a.Tree(ctx, &wire.TreeRequest{})
		raw = resp.GetJson()
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	t, err := tree.Decode(raw)
	return t, raw, err
}

// treeWatch shows the tree again and again.
type treeWatch struct {
	json     bool
	out      io.Writer
	style    term.Style
	terminal bool
	every    time.Duration
	last     string // what was drawn, without a note below it
}

// The control sequences of terminals (ECMA-48 and DEC private modes): another
// screen without a cursor and without line wrapping, and back.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l"
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	homeCursor  = "\x1b[H"
	eraseLine   = "\x1b[K"
	eraseBelow  = "\x1b[J"
)

// run ends without an error when ctx does. A cluster that is not there at the
// beginning is an error; later it may come back.
func (w *treeWatch) run(ctx context.Context, dataDir string) error {
	dir, err := openDir(dataDir)
	if err != nil {
		return err
	}
	t, raw, err := readTree(ctx, dir)
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
		if err := w.show(t, raw, err); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		t, raw, err = readTree(ctx, dir)
		if ctx.Err() != nil {
			return nil
		}
	}
}

func (w *treeWatch) show(t *tree.Tree, raw []byte, problem error) error {
	if w.json {
		if problem != nil {
			return nil // nothing to tell; the next one will be
		}
		var line bytes.Buffer
		err := json.Compact(&line, raw)
		if err == nil {
			_, err = fmt.Fprintf(w.out, "%s\n", &line)
		}
		return err
	}
	note := ""
	if problem != nil {
		note = "\n" + w.style.Paint(term.Red, problem.Error()) + "\n"
	} else {
		var b strings.Builder
		if err := t.Render(&b, time.Now(), w.style); err != nil {
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
