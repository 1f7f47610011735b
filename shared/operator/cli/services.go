package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/observe/ps"
	"github.com/dynast-io/dynast/shared/operator/psview"
	"github.com/dynast-io/dynast/shared/operator/term"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/services"
)

func (a *App) psCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "ps [NAME...]", Short: "List the instances of the services", Args: cobra.ArbitraryArgs}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	c := a.WithCluster(cmd)
	cmd.ValidArgsFunction = c.completeService
	c.run(cmd, func(ctx context.Context, cfg *config.Config, names []string) error {
		return PS(ctx, cfg.DataDir, names, asJSON, os.Stdout, term.StyleOf(os.Stdout))
	})
	return cmd
}

// PS prints the services of a data directory, or those that are named.
func PS(ctx context.Context, dataDir string, names []string, asJSON bool, out io.Writer, s term.Style) error {
	dir, err := openDir(dataDir)
	if err != nil {
		return err
	}
	r, err := readServices(ctx, dir)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		if r, err = only(r, names); err != nil {
			return err
		}
	}
	if asJSON {
		return json.NewEncoder(out).Encode(r)
	}
	return psview.Write(out, r, time.Now(), s)
}

// only returns the part of a report that is about some services or instances.
func only(r *ps.Report, names []string) (*ps.Report, error) {
	out := *r
	out.Services = []ps.Service{}
	for _, name := range names {
		if len(r.Find(name)) == 0 && !slices.ContainsFunc(r.Services, func(s ps.Service) bool { return s.Name == name }) {
			return nil, &Error{Code: core.ExitError, Err: fmt.Errorf("there is no service or instance %q; 'dynast ps' lists them", name)}
		}
	}
	for _, s := range r.Services {
		all := slices.Contains(names, s.Name)
		var some []ps.Instance
		for _, i := range s.Instances {
			if all || slices.Contains(names, i.ID) {
				some = append(some, i)
			}
		}
		if all || len(some) > 0 {
			s.Instances = some
			out.Services = append(out.Services, s)
		}
	}
	return &out, nil
}

func readServices(ctx context.Context, dir *datadir.Dir) (*ps.Report, error) {
	var raw []byte
	err := withLeader(ctx, dir, takeoverPatience, func(ctx context.Context, a *admin) error {
		resp, err := a.Services(ctx, &wire.ServicesRequest{})
		raw = resp.GetJson()
		return err
	})
	if err != nil {
		return nil, err
	}
	return ps.Decode(raw)
}

// serviceCommand makes a command that acts on services.
func (a *App) serviceCommand(use, short string, action member.Action, flags func(*cobra.Command, *wire.ActRequest)) *cobra.Command {
	req := &wire.ActRequest{Action: string(action)}
	w := waiting{action: action}
	cmd := &cobra.Command{Use: use, Short: short, Args: needsService}
	if flags != nil {
		flags(cmd, req)
	}
	w.bind(cmd)
	c := a.WithCluster(cmd)
	cmd.ValidArgsFunction = c.completeService
	c.run(cmd, func(ctx context.Context, cfg *config.Config, names []string) error {
		req.Names = names
		return Act(ctx, cfg.DataDir, req, w, os.Stdout)
	})
	return cmd
}

// ofDynast says, for a command about services, what does the same with dynast itself.
var ofDynast = map[string]string{
	"start":   "; 'dynast up' starts dynast itself",
	"restart": "; for dynast itself, 'dynast upgrade' replaces all processes, and 'dynast promote' only the leader",
}

func needsService(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return nil
	}
	return fmt.Errorf("the name of a service is missing ('dynast ps' lists them)%s", ofDynast[cmd.Name()])
}

func (a *App) serviceCommands() []*cobra.Command {
	return []*cobra.Command{
		a.psCommand(),
		a.serviceCommand("start NAME[/N]...", "Start services that were stopped, have failed or are done", member.ActionStart, nil),
		a.serviceCommand("restart NAME[/N]...", "Restart services or instances", member.ActionRestart, func(cmd *cobra.Command, r *wire.ActRequest) {
			cmd.Flags().BoolVar(&r.Rolling, "rolling", false, "start a new instance and wait until it is ready before an old one is stopped, one after the other")
		}),
		a.serviceCommand("signal NAME[/N]...", "Send a signal to the main process of services or instances", member.ActionSignal, func(cmd *cobra.Command, r *wire.ActRequest) {
			cmd.Flags().StringVarP(&r.Signal, "signal", "s", "HUP", "`NAME` of the signal, for example HUP or USR1")
		}),
		a.killCommand(),
		a.runCommand(),
	}
}

// waiting says how long a command waits until the instances are in the wanted state.
type waiting struct {
	action  member.Action
	rolling bool
	timeout time.Duration
	// json prints the instances as 'dynast ps --json' does.
	json bool
}

func (w *waiting) bind(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&w.timeout, "wait", 30*time.Second, "how long to wait until the instances have followed; 0 does not wait")
	cmd.Flags().BoolVar(&w.json, "json", false, "print one JSON object, as 'dynast ps --json' does")
}

// Act sends a command about services to the leader and waits until the instances have followed.
func Act(ctx context.Context, dataDir string, req *wire.ActRequest, w waiting, out io.Writer) error {
	dir, err := openDir(dataDir)
	if err != nil {
		return err
	}
	before, err := readServices(ctx, dir)
	if err != nil {
		return err
	}
	ids, err := sendAct(ctx, dir, req)
	if err != nil {
		return err
	}
	if w.timeout == 0 {
		if w.json {
			return w.show(before, ids, out)
		}
		return nil
	}
	w.rolling = req.Rolling
	return w.await(ctx, dir, before, ids, out)
}

// sendAct sends a command about services to the leader. It returns the instances that it is about.
func sendAct(ctx context.Context, dir *datadir.Dir, req *wire.ActRequest) (ids []string, err error) {
	var resp *wire.ActResponse
	err = askOnce(ctx, dir, func(ctx context.Context, a *admin) (err error) {
		resp, err = a.Act(ctx, req)
		return err
	})
	if code := status.Code(err); code == codes.FailedPrecondition || code == codes.InvalidArgument || code == codes.PermissionDenied {
		return nil, &Error{Code: core.ExitError, Err: fmt.Errorf("%s: nothing was changed: %s", req.Action, status.Convert(err).Message())}
	}
	return resp.GetInstances(), err
}

// pollServices is how often a waiting command looks.
const pollServices = 50 * time.Millisecond

// settles is how long an instance must run until a command believes that it works.
const settles = 300 * time.Millisecond

// await waits until all instances have followed, and prints them.
func (w waiting) await(ctx context.Context, dir *datadir.Dir, before *ps.Report, ids []string, out io.Writer) error {
	deadline := time.Now().Add(w.timeout)
	for {
		now, err := readServices(ctx, dir)
		if err != nil {
			return err
		}
		var late []string
		failed := false
		for _, id := range ids {
			i, ok := instance(now, id)
			old, _ := instance(before, id)
			switch {
			case !w.followed(old, i, ok):
				late = append(late, fmt.Sprintf("%s is %s", id, i.State))
			case services.State(i.State) == services.StateFailed && w.starts():
				failed = true
			}
		}
		ended := w.endedEarly(now, ids)
		if len(late) > 0 && len(ended) == 0 && time.Now().Before(deadline) {
			select {
			case <-time.After(pollServices):
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := w.show(now, ids, out); err != nil {
			return err
		}
		switch {
		case len(ended) > 0:
			return &Error{Code: core.ExitError, Err: fmt.Errorf("%s: the rolling restart has ended: %s; the other instances run on", w.action, strings.Join(ended, "; "))}
		case len(late) > 0:
			return &Error{Code: core.ExitError, Err: fmt.Errorf("%s: after %s: %s; it goes on in the background, see 'dynast ps'", w.action, w.timeout, strings.Join(late, ", "))}
		case failed:
			return &Error{Code: core.ExitError, Err: fmt.Errorf("%s: not all instances run; see 'dynast logs NAME'", w.action)}
		}
		return nil
	}
}

// show prints the instances that still exist.
func (w waiting) show(r *ps.Report, ids []string, out io.Writer) error {
	shown, err := only(r, existing(r, ids))
	switch {
	case err != nil:
		return err
	case w.json:
		return json.NewEncoder(out).Encode(shown)
	case len(shown.Services) == 0:
		return nil
	}
	return psview.Write(out, shown, time.Now(), term.Style{})
}

// endedEarly says why rolling restarts have ended that the command began.
func (w waiting) endedEarly(r *ps.Report, ids []string) []string {
	var out []string
	for _, s := range r.Services {
		ours := slices.ContainsFunc(s.Instances, func(i ps.Instance) bool { return slices.Contains(ids, i.ID) })
		if w.rolling && ours && !s.Rolling && s.RollingError != "" {
			out = append(out, s.RollingError)
		}
	}
	return out
}

func (w waiting) starts() bool {
	return w.action == member.ActionStart || w.action == member.ActionRestart || w.action == member.ActionRun
}

// followed reports whether an instance has done what the command wants.
func (w waiting) followed(old, i ps.Instance, exists bool) bool {
	state := services.State(i.State)
	// A program without a ready check counts as ready as soon as it runs, also if it fails at once.
	lasts := state == services.StateReady && i.UptimeMS >= settles.Milliseconds()
	settled := lasts || state == services.StateDone || state == services.StateFailed
	switch w.action {
	case member.ActionStop, member.ActionRemove:
		return !exists || i.PID == 0 && state != services.StateStarting && state != services.StateStopping
	case member.ActionRun:
		return settled || !exists // with --rm it is gone as soon as it has ended
	case member.ActionStart:
		return settled
	case member.ActionRestart:
		return settled && (old.PID == 0 || i.PID != old.PID)
	case member.ActionKill:
		return old.PID == 0 || i.PID != old.PID
	}
	return true
}

func instance(r *ps.Report, id string) (ps.Instance, bool) {
	for _, i := range r.Find(id) {
		if i.ID == id {
			return i, true
		}
	}
	return ps.Instance{}, false
}

func existing(r *ps.Report, ids []string) []string {
	var out []string
	for _, id := range ids {
		if _, ok := instance(r, id); ok {
			out = append(out, id)
		}
	}
	return out
}

func (a *App) runCommand() *cobra.Command {
	var name, dir string
	var remove, follow bool
	var instances int
	var restart string
	w := waiting{action: member.ActionRun}
	cmd := &cobra.Command{
		Use:   "run [flags] -- COMMAND [ARGUMENT...]",
		Short: "Add a service at run time",
		Long: "The service runs COMMAND in the current directory, like one with a block in the configuration. It stays until\n" +
			"'dynast stop --remove NAME', also when dynast is stopped and started again. With --rm it is removed when it has ended.\n\n" +
			"With --tail the command prints the output of the service until the service has ended. Its exit code is then that of\n" +
			"the program, 128 and the number of the signal that ended the program, or 1 if the service was stopped, could not be\n" +
			"started, or its exit code is not known. Ctrl-C ends the command with the exit code 130. The service runs on, but with\n" +
			"--rm it is stopped and removed.",
		Args: cobra.MinimumNArgs(1),
	}
	cmd.Flags().StringVar(&name, "name", "", "`NAME` of the service; default: the name of the program")
	cmd.Flags().StringVar(&dir, "dir", "", "working `DIRECTORY`; default: the current one")
	cmd.Flags().IntVar(&instances, "instances", 1, "number of instances")
	cmd.Flags().StringVar(&restart, "restart", "", "always, on-failure or never; default: always, and never with --rm")
	cmd.Flags().BoolVar(&remove, "rm", false, "remove the service when it has ended")
	cmd.Flags().BoolVar(&follow, "tail", false, "print the output until the service has ended; then exit with the exit code of the program")
	w.bind(cmd)
	cmd.MarkFlagsMutuallyExclusive("tail", "wait")
	cmd.MarkFlagsMutuallyExclusive("tail", "json")
	c := a.WithCluster(cmd)
	c.run(cmd, func(ctx context.Context, cfg *config.Config, argv []string) error {
		s := config.NewService()
		s.Name, s.Command, s.Instances = name, argv, instances
		if name == "" {
			s.Name = filepath.Base(argv[0])
		}
		if remove {
			s.Restart = config.RestartNever
		}
		if restart != "" {
			s.Restart = config.Restart(restart)
		}
		var err error
		if s.Dir, err = filepath.Abs(dir); err == nil {
			err = s.CheckHost()
		}
		if err != nil {
			return &Error{Code: ExitUsage, Err: fmt.Errorf("run: %w", err)}
		}
		b, err := json.Marshal(s)
		if err != nil {
			return err
		}
		req := &wire.ActRequest{Action: string(member.ActionRun), Service: b, RemoveWhenDone: remove}
		if follow {
			return runAndFollow(ctx, cfg.DataDir, req, s.Name, os.Stdout, os.Stderr)
		}
		return Act(ctx, cfg.DataDir, req, w, os.Stdout)
	})
	return cmd
}

// completeService completes the names of services and instances.
func (c *Configured) completeService(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	var found []string
	if r, err := c.servicesForCompletion(cmd); err == nil {
		for _, s := range r.Services {
			found = append(found, s.Name+"\t"+s.Desired)
			for _, i := range s.Instances {
				found = append(found, i.ID+"\t"+i.State)
			}
		}
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}

func (c *Configured) servicesForCompletion(cmd *cobra.Command) (*ps.Report, error) {
	cfg, err := c.Load()
	if err != nil {
		return nil, err
	}
	dir, err := openDir(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	ctx := cmd.Context()
	if ctx == nil {
		return nil, errors.New("no context")
	}
	ctx, cancel := context.WithTimeout(ctx, completionPatience)
	defer cancel()
	return readServices(ctx, dir)
}
