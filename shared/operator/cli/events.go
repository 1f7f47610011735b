package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/observe/events"
	"github.com/dynast-io/dynast/shared/operator/term"
)

func (a *App) eventsCommand() *cobra.Command {
	var o EventsOptions
	var since string
	cmd := &cobra.Command{
		Use: "events", Short: "Show what happened in a cluster: starts, deaths, takeovers", Args: cobra.NoArgs,
		Long: "Show the events of a cluster, also those from before takeovers and restarts: which members started, died,\n" +
			"took over, were killed because they were silent, or were rebuilt. The command reads the data directory, so it\n" +
			"also works when nothing runs.",
	}
	cmd.Flags().BoolVarP(&o.Follow, "follow", "f", false, "also print new events, until interrupted")
	cmd.Flags().BoolVar(&o.JSON, "json", false, "print one JSON object per line")
	cmd.Flags().StringVar(&since, "since", "", "print only events since then: a `DURATION` before now (10m) or a time (2026-01-02T15:04:05Z)")
	c := a.WithCluster(cmd)
	c.run(cmd, func(ctx context.Context, cfg *config.Config, _ []string) error {
		var err error
		if o.Since, err = parseSince(since, time.Now()); err != nil {
			return &Error{Code: ExitUsage, Err: err}
		}
		o.Style = term.StyleOf(os.Stdout)
		return Events(ctx, cfg.DataDir, o, os.Stdout)
	})
	return cmd
}

// EventsOptions say which events are printed, and how.
type EventsOptions struct {
	Follow, JSON bool
	// Since leaves out earlier events. The zero time leaves out none.
	Since time.Time
	Style term.Style
}

// Events prints the events of a data directory.
func Events(ctx context.Context, dataDir string, o EventsOptions, out io.Writer) error {
	dir, err := openDir(dataDir)
	if err != nil {
		return err
	}
	print := func(es []events.Event) error {
		for _, e := range es {
			if e.At.Before(o.Since) {
				continue
			}
			if err := printEvent(out, e, o); err != nil {
				return err
			}
		}
		return nil
	}
	if o.Follow {
		r := events.NewReader(dir.Path())
		defer r.Close()
		return r.Follow(ctx, print)
	}
	es, err := events.Read(dir.Path())
	return errors.Join(print(es), err)
}

func printEvent(out io.Writer, e events.Event, o EventsOptions) error {
	if o.JSON {
		b, err := json.Marshal(e)
		if err == nil {
			_, err = fmt.Fprintf(out, "%s\n", b)
		}
		return err
	}
	_, err := fmt.Fprintln(out, eventLine(e, o.Style))
	return err
}

// eventLine formats an event for people, in columns.
func eventLine(e events.Event, s term.Style) string {
	who := e.Member
	if e.PID != 0 {
		who = fmt.Sprintf("%s pid %d", who, e.PID)
	}
	text := term.Printable(e.Detail)
	if e.Seconds > 0 {
		text = fmt.Sprintf("%s (%.1f ms without a leader)", text, e.Seconds*1000)
	}
	return fmt.Sprintf("%s  epoch %-4d %s  %-28s %s",
		s.Paint(term.Dim, e.At.Local().Format("2006-01-02 15:04:05.000")), e.Epoch, s.Paint(term.EventColour(e.Kind), fmt.Sprintf("%-18s", e.Kind)), who, text)
}

// parseSince reads a duration before now, or a time.
func parseSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05", "2006-01-02"} {
		if at, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("invalid --since %q: want a duration like 10m, or a time like 2026-01-02T15:04:05Z", text)
}
