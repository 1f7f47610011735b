package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/observe/logview"
	"github.com/dynast-io/dynast/shared/operator/term"
)

func (a *App) logsCommand() *cobra.Command {
	var o LogsOptions
	var since string
	var asJSON, asText bool
	cmd := &cobra.Command{
		Use: "logs [NAME...]", Short: "Show the output of services and the logs of members, by time", Args: cobra.ArbitraryArgs,
		Long: "Show the output of all services and the logs of all members, merged by time, also from before rotations, restarts\n" +
			"and takeovers, and also when nothing runs. Each NAME is a service (web), an instance (web/1), or the address of a\n" +
			"member (127.0.0.1:7401); then only these are shown.\n\n" +
			"A line of an instance begins with its time and the instance. As JSON it is an object with at, instance and text.\n" +
			"In a terminal, its control characters are replaced, except for colours.\n\n" +
			"The logs of members are read from log.directory. If log.directory is off, all members log to the standard error\n" +
			"of the first leader. If that is a file, the command reads it. Otherwise it says where to look.",
	}
	cmd.Flags().BoolVarP(&o.Follow, "follow", "f", false, "also print new entries, until interrupted")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON objects, even if the log is text")
	cmd.Flags().BoolVar(&asText, "text", false, "print text, even if the log is JSON")
	cmd.Flags().BoolVar(&o.Raw, "raw", false, "print the output of one instance exactly as the program wrote it")
	cmd.Flags().StringVar(&since, "since", "", "print only entries since then: a `DURATION` before now (10m) or a time (2026-01-02T15:04:05Z)")
	cmd.Flags().IntVarP(&o.Tail, "tail", "n", -1, "print only the last `N` entries, and then those that --follow adds; -1: all entries")
	cmd.MarkFlagsMutuallyExclusive("json", "text", "raw")
	c := a.WithCluster(cmd, "log.directory")
	cmd.ValidArgsFunction = c.completeLogs
	c.run(cmd, func(ctx context.Context, cfg *config.Config, args []string) error {
		var err error
		if o.Since, err = parseSince(since, time.Now()); err != nil {
			return &Error{Code: ExitUsage, Err: err}
		}
		o.Names = args
		o.Form = map[bool]string{asJSON: "json", asText: "text"}[true]
		o.Style, o.Terminal = term.StyleOf(os.Stdout), term.IsTerminal(os.Stdout)
		return Logs(ctx, cfg, o, os.Stdout, os.Stderr)
	})
	return cmd
}

// LogsOptions say which logs are printed, and how.
type LogsOptions struct {
	// Names are addresses of members, services and instances. None means everything.
	Names  []string
	Follow bool
	// Form is json, text, or empty: the logs of members as they were written, and the output of
	// instances as text.
	Form string
	// Raw prints the bytes of one instance.
	Raw      bool
	Since    time.Time
	Tail     int // negative: all
	Style    term.Style
	Terminal bool // the output goes to a terminal
}

// Logs prints the output of services and the logs of a cluster. If it does not find logs in the
// configured directory, it writes to notes where it found them.
func Logs(ctx context.Context, cfg *config.Config, o LogsOptions, out, notes io.Writer) error {
	q, shown, err := o.query(ctx, cfg, notes)
	if err != nil {
		return err
	}
	q.Since, q.Tail = o.Since, o.Tail
	p := &logPrinter{o: o, out: out, notes: notes}
	for _, id := range shown {
		p.style(id)
	}
	v := logview.New(q)
	defer v.Close()
	if err := v.Show(ctx, p.print); err != nil || !o.Follow {
		if o.Follow && ctx.Err() != nil { // the user has interrupted it
			return nil
		}
		return err
	}
	return v.Follow(ctx, p.print)
}

// query finds out where the named logs are. It also returns the instances among them.
func (o LogsOptions) query(ctx context.Context, cfg *config.Config, notes io.Writer) (q logview.Query, shown []string, err error) {
	var addresses, names []string
	for _, name := range o.Names {
		service, _, _ := strings.Cut(name, "/")
		if strings.Contains(name, ":") && service != member.EngineService { // no service of a user has a colon in its name
			addresses = append(addresses, name)
		} else {
			names = append(names, name)
		}
	}
	all := len(o.Names) == 0
	dir, instances, err := findInstances(cfg.DataDir)
	if err != nil {
		if len(names) > 0 || o.Raw {
			return q, nil, err
		}
		if !errors.Is(err, fs.ErrNotExist) && all {
			fmt.Fprintf(notes, "the output of services is not shown: %v\n", err)
		}
	}
	if all || len(names) > 0 {
		var unknown string
		if shown, unknown = selectInstances(instances, names); unknown != "" {
			return q, nil, fmt.Errorf("there is no service or instance %q with output: %s", unknown, whatExists(ctx, cfg, instances))
		}
	}
	if o.Raw {
		if len(addresses) > 0 || len(shown) != 1 {
			return q, nil, &Error{Code: ExitUsage, Err: errors.New("--raw prints the output of one instance: name it, for example web/1")}
		}
		return logview.Query{Services: dir, Names: shown}, shown, nil
	}
	if all || len(addresses) > 0 {
		q, err = whereLogsAre(ctx, cfg, notes)
		if err != nil && all && len(shown) > 0 {
			fmt.Fprintf(notes, "the logs of members are not shown: %v\n", err)
			q, err = logview.Query{}, nil
		}
		if err != nil {
			return q, nil, err
		}
		q.Addresses = addresses
		for _, address := range addresses {
			if q.Directory == "" {
				break
			}
			if err := knowsMember(q.Directory, address); err != nil {
				return q, nil, err
			}
		}
	}
	if all || len(names) > 0 {
		q.Services, q.Names = dir, names
	}
	return q, shown, nil
}

// findInstances returns the directory of the services and the instances that have one there.
func findInstances(dataDir string) (dir string, instances []string, err error) {
	d, err := openDir(dataDir)
	if err != nil {
		return "", nil, err
	}
	if instances, err = logview.Instances(d.Services()); err != nil {
		return "", nil, err
	}
	return d.Services(), instances, nil
}

// selectInstances returns the instances that names have, or all if there are no names. It also
// returns a name that fits none of them, if there is one.
func selectInstances(instances, names []string) (selected []string, unknown string) {
	for _, id := range instances {
		if logview.Selected(names, id) {
			selected = append(selected, id)
		}
	}
	for _, name := range names {
		if !slices.ContainsFunc(instances, func(id string) bool { return logview.Selected([]string{name}, id) }) {
			return selected, name
		}
	}
	return selected, ""
}

// whatExists says what can be named.
func whatExists(ctx context.Context, cfg *config.Config, instances []string) string {
	text := "no instance has started yet"
	if len(instances) > 0 {
		text = "the instances are " + strings.Join(instances, ", ")
	}
	q, err := whereLogsAre(ctx, cfg, io.Discard)
	if err != nil || q.Directory == "" {
		return text
	}
	if members, err := logview.Members(q.Directory); err == nil && len(members) > 0 {
		text += "; the members with logs are " + strings.Join(members, ", ")
	}
	return text
}

// logPrinter prints entries.
type logPrinter struct {
	o          LogsOptions
	out, notes io.Writer
	colours    map[string]term.Colour // of the instances
	width      int                    // of the longest instance
}

// style returns the colour of an instance, which is not that of a fault. It makes the column of the
// instances wide enough.
func (p *logPrinter) style(instance string) term.Colour {
	c, ok := p.colours[instance]
	if !ok {
		palette := []term.Colour{term.Cyan, term.Yellow, term.Green, term.Magenta, term.Blue}
		if p.colours == nil {
			p.colours = map[string]term.Colour{}
		}
		c = palette[len(p.colours)%len(palette)]
		p.colours[instance] = c
		p.width = max(p.width, len(instance))
	}
	return c
}

func (p *logPrinter) print(e *logview.Entry) error {
	if p.o.Raw {
		return p.printRaw(e)
	}
	_, err := fmt.Fprintln(p.out, p.render(e))
	return err
}

func (p *logPrinter) printRaw(e *logview.Entry) error {
	if e.Gap {
		fmt.Fprintln(p.notes, e.Instance, e.Message)
		return nil
	}
	text := e.Raw
	if !e.Partial {
		text += "\n"
	}
	_, err := io.WriteString(p.out, text)
	return err
}

func (p *logPrinter) render(e *logview.Entry) string {
	switch {
	case p.o.Form == "json":
		return e.JSON()
	case e.Instance != "":
		return p.outputLine(e)
	case p.o.Form == "text", !e.IsJSON:
		return p.o.paint(e, e.Text())
	}
	return e.Raw
}

// outputLine is the text for a line of an instance.
func (p *logPrinter) outputLine(e *logview.Entry) string {
	c, text := p.style(e.Instance), e.Message
	switch {
	case e.Gap:
		text = p.o.Style.Paint(term.Yellow, text)
	case p.o.Terminal:
		text = p.o.Style.Output(text)
	}
	return e.At.Format(logview.TimeFormat) + " " + p.o.Style.Paint(c, fmt.Sprintf("%-*s |", p.width, e.Instance)) + " " + text
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

// whereLogsAre finds the logs of members. It asks the leader first, because the leader may have other flags
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

// completeLogs completes an argument to a service, an instance, or a member of the running cluster.
func (c *Configured) completeLogs(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	found, directive := c.completeMember(cmd, nil, toComplete)
	if cfg, err := c.Load(); err == nil {
		_, instances, _ := findInstances(cfg.DataDir)
		for i, id := range instances {
			if service := logview.Service(id); i == 0 || service != logview.Service(instances[i-1]) {
				found = append(found, service+"\tservice")
			}
			found = append(found, id+"\tinstance")
		}
	}
	return slices.DeleteFunc(found, func(s string) bool {
		name, _, _ := strings.Cut(s, "\t")
		return slices.Contains(args, name)
	}), directive
}
