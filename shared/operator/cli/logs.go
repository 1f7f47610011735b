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
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/observe/logview"
	"github.com/dynast-io/dynast/shared/operator/term"
)

func (a *App) logsCommand() *cobra.Command {
	var o LogsOptions
	var since string
	var asJSON, asText bool
	cmd := &cobra.Command{
		Use: "logs [ADDRESS]", Short: "Show the logs of all members, or of one member, merged by time", Args: cobra.MaximumNArgs(1),
		Long: "Show the logs of all members, or of one member, merged by time, also from before rotations and takeovers.\n" +
			"The command reads the files in log.directory. If log.directory is off, all members log to the standard error of\n" +
			"the first leader. If that is a file, the command reads it. Otherwise it says where to look.",
	}
	cmd.Flags().BoolVarP(&o.Follow, "follow", "f", false, "also print new entries, until interrupted")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON objects, even if the log is text")
	cmd.Flags().BoolVar(&asText, "text", false, "print text, even if the log is JSON")
	cmd.Flags().StringVar(&since, "since", "", "print only entries since then: a `DURATION` before now (10m) or a time (2026-01-02T15:04:05Z)")
	cmd.Flags().IntVarP(&o.Tail, "tail", "n", -1, "print only the last `N` entries, and then those that --follow adds; -1: all entries")
	cmd.MarkFlagsMutuallyExclusive("json", "text")
	c := a.WithConfig(cmd)
	cmd.ValidArgsFunction = c.completeMember
	c.run(cmd, func(ctx context.Context, cfg *config.Config, args []string) error {
		var err error
		if o.Since, err = parseSince(since, time.Now()); err != nil {
			return &Error{Code: ExitUsage, Err: err}
		}
		if len(args) > 0 {
			o.Address = args[0]
		}
		o.Form = map[bool]string{asJSON: "json", asText: "text"}[true]
		o.Style = term.StyleOf(os.Stdout)
		return Logs(ctx, cfg, o, os.Stdout, os.Stderr)
	})
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

// Logs prints the logs of a cluster. If it does not find them in the configured directory, it
// writes to notes where it found them.
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

// paint colours the level in a text line.
func (o LogsOptions) paint(e *logview.Entry, line string) string {
	level := "[" + strings.ToUpper(e.Level) + "]"
	c := map[string]term.Colour{"error": term.Red, "warn": term.Yellow, "info": term.Cyan, "debug": term.Dim, "trace": term.Dim}[e.Level]
	before, after, ok := strings.Cut(line, level)
	if !ok {
		return line
	}
	return before + o.Style.Paint(c, level) + after
}

// knowsMember returns an error that lists the members with logs if address is not one of them.
func knowsMember(dir, address string) error {
	names, err := logview.Members(dir)
	if err != nil {
		return err
	}
	if logview.HasMember(names, address) {
		return nil
	}
	return fmt.Errorf("there is no log of member %s in %s: the members with logs are %s", address, dir, strings.Join(names, ", "))
}

// whereLogsAre finds the logs. It asks the leader first, because the leader may have other flags
// than this command. Then it uses the configuration, and then the standard error of the leader.
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
	if directory := cfg.LogDirectory(); directory != "" && leader == 0 {
		return logview.Query{Directory: directory}, nil
	}
	const advice = `to get a log file for each member, set log { directory = "" } (--log-directory) and restart`
	if leader == 0 {
		return logview.Query{}, fmt.Errorf("log.directory is off, so members log to the standard error of the first leader, and no member runs now: %s", advice)
	}
	stderr := fmt.Sprintf("/proc/%d/fd/2", leader)
	target, err := os.Readlink(stderr)
	if err != nil {
		return logview.Query{}, fmt.Errorf("log.directory is off, and this user may not see where the members log to: %w; %s", err, advice)
	}
	if info, err := os.Stat(stderr); err == nil && info.Mode().IsRegular() {
		// Open the file by its name, unless the name is gone or belongs to another file now.
		path := target
		if named, err := os.Stat(target); err != nil || !os.SameFile(named, info) {
			path = stderr
		}
		f, err := os.Open(path)
		if err == nil {
			err = f.Close()
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return logview.Query{}, fmt.Errorf("log.directory is off, and the standard error of the members cannot be read: %w; %s", err, advice)
		}
		fmt.Fprintf(notes, "log.directory is off: reading the standard error of the members, %s\n", target)
		return logview.Query{File: path}, nil
	}
	return logview.Query{}, fmt.Errorf("log.directory is off, so members log to standard error only, and that is %s; %s", describeStderr(target), advice)
}

// describeStderr describes a standard error that this command cannot read.
func describeStderr(target string) string {
	switch {
	case target == "/dev/null":
		return "/dev/null: the logs are lost"
	case strings.HasPrefix(target, "/dev/pts/"), strings.HasPrefix(target, "/dev/tty"):
		return "the terminal " + target
	case strings.HasPrefix(target, "socket:"):
		return "a socket, most likely the systemd journal: try 'journalctl -u dynast'"
	case strings.HasPrefix(target, "pipe:"):
		return "a pipe: look at the program that reads it, for example the log of the container"
	}
	return target
}
