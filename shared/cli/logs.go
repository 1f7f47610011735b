package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/datadir"
	"github.com/dynast-io/dynast/shared/logview"
	"github.com/dynast-io/dynast/shared/term"
)

func (a *App) logsCommand() *cobra.Command {
	var o LogsOptions
	var since string
	var asJSON, asText bool
	cmd := &cobra.Command{
		Use: "logs [ADDRESS]", Short: "Show the logs of all members, or of one, merged by time", Args: cobra.MaximumNArgs(1),
		Long: "Show the logs of all members, or of one, merged by time, over rotations and takeovers.\n" +
			"It reads the files in log.directory. Without one, members log to the standard error of the first leader only: if that\n" +
			"is a file, it is read; else you are told where to look.",
	}
	cmd.Flags().BoolVarP(&o.Follow, "follow", "f", false, "go on with what is logged from now on, until interrupted")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON objects, also of a text log")
	cmd.Flags().BoolVar(&asText, "text", false, "print text, also of a JSON log")
	cmd.Flags().StringVar(&since, "since", "", "only what is younger: a `DURATION` (10m) or a time (2026-01-02T15:04:05Z)")
	cmd.Flags().IntVarP(&o.Tail, "tail", "n", -1, "only the last `N` entries, before what --follow adds; -1: all")
	cmd.MarkFlagsMutuallyExclusive("json", "text")
	c := a.WithConfig(cmd)
	cmd.ValidArgsFunction = c.completeMember
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := c.Load()
		if err != nil {
			return err
		}
		if o.Since, err = parseSince(since, time.Now()); err != nil {
			return &Error{Code: ExitUsage, Err: err}
		}
		if len(args) > 0 {
			o.Address = args[0]
		}
		o.Form = map[bool]string{asJSON: "json", asText: "text"}[true]
		o.Style = term.StyleOf(os.Stdout)
		return asError(Logs(cmd.Context(), cfg, o, os.Stdout, os.Stderr))
	}
	return cmd
}

// LogsOptions say which logs are printed, and how.
type LogsOptions struct {
	Address string // empty: all members
	Follow  bool
	Form    string // json, text, or empty: as they were written
	Since   time.Time
	Tail    int // negative: all
	Style   term.Style
}

// Logs prints the logs of a cluster. Where it found them, if not in the
// configured directory, is told on notes.
func Logs(ctx context.Context, cfg *config.Config, o LogsOptions, out, notes io.Writer) error {
	q, err := whereLogsAre(ctx, cfg, notes)
	if err != nil {
		return err
	}
	q.Address, q.Since, q.Tail = o.Address, o.Since, o.Tail
	if q.Directory != "" && o.Address != "" {
		if err := knowsMember(q.Directory, o.Address); err != nil {
			return err
		}
	}
	v := logview.New(q)
	defer v.Close()
	print := func(e *logview.Entry) error {
		_, err := fmt.Fprintln(out, o.render(e))
		return err
	}
	if err := v.Show(print); err != nil || !o.Follow {
		return err
	}
	return v.Follow(ctx, print)
}

func (o LogsOptions) render(e *logview.Entry) string {
	switch {
	case o.Form == "json":
		return e.JSON()
	case o.Form == "text", !e.IsJSON:
		return o.paint(e, e.Text())
	}
	return e.Raw
}

// paint colours the level in a line of text.
func (o LogsOptions) paint(e *logview.Entry, line string) string {
	level := "[" + strings.ToUpper(e.Level) + "]"
	c := map[string]term.Colour{"error": term.Red, "warn": term.Yellow, "info": term.Cyan, "debug": term.Dim, "trace": term.Dim}[e.Level]
	before, after, ok := strings.Cut(line, level)
	if !ok {
		return line
	}
	return before + o.Style.Paint(c, level) + after
}

// knowsMember names the members that have logs, if the address is none of them.
func knowsMember(dir, address string) error {
	names, err := logview.Members(dir)
	if err != nil {
		return err
	}
	if logview.HasMember(names, address) {
		return nil
	}
	return fmt.Errorf("no member %s has logged in %s; there are %s", address, dir, strings.Join(names, ", "))
}

// whereLogsAre asks the leader, whose flags may say something else than this
// command's configuration, then the configuration, then what the leader's
// standard error is.
func whereLogsAre(ctx context.Context, cfg *config.Config, notes io.Writer) (logview.Query, error) {
	leader := 0
	if dir, err := datadir.OpenForReading(cfg.DataDir); err == nil && !deserted(dir) {
		if t, _, err := readTree(ctx, dir); err == nil {
			if t.LogDirectory != "" {
				return logview.Query{Directory: t.LogDirectory}, nil
			}
			for _, m := range t.Members {
				if m.Address == t.Leader {
					leader = m.PID
				}
			}
		}
	}
	if cfg.Log.Directory != "" {
		return logview.Query{Directory: cfg.Log.Directory}, nil
	}
	const advice = `set log { directory = "..." } (--log-directory) and restart to have a file for each member`
	if leader == 0 {
		return logview.Query{}, fmt.Errorf("log.directory is not set, so members log to the standard error of the process that was started first, and none runs now: %s", advice)
	}
	stderr := fmt.Sprintf("/proc/%d/fd/2", leader)
	target, err := os.Readlink(stderr)
	if err != nil {
		return logview.Query{}, fmt.Errorf("log.directory is not set, and where members log to is not for this user to see: %w; %s", err, advice)
	}
	if info, err := os.Stat(stderr); err == nil && info.Mode().IsRegular() {
		// By its name, unless that is gone or somebody else's now.
		path := target
		if named, err := os.Stat(target); err != nil || !os.SameFile(named, info) {
			path = stderr
		}
		f, err := os.Open(path)
		if err == nil {
			err = f.Close()
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return logview.Query{}, fmt.Errorf("log.directory is not set, and the members' standard error cannot be read: %w; %s", err, advice)
		}
		fmt.Fprintf(notes, "log.directory is not set: reading the members' standard error, %s\n", target)
		return logview.Query{File: path}, nil
	}
	return logview.Query{}, fmt.Errorf("log.directory is not set, so members log to standard error only, which is %s; %s", describeStderr(target), advice)
}

// describeStderr says what a standard error is that cannot be read from.
func describeStderr(target string) string {
	switch {
	case target == "/dev/null":
		return "/dev/null: what they logged is gone"
	case strings.HasPrefix(target, "/dev/pts/"), strings.HasPrefix(target, "/dev/tty"):
		return "the terminal " + target
	case strings.HasPrefix(target, "socket:"):
		return "a socket: the journal, most likely (journalctl -u dynast)"
	case strings.HasPrefix(target, "pipe:"):
		return "a pipe: see what reads it (a container's log, for example)"
	}
	return target
}
