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
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/observe/ps"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/plural"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

func (a *App) stopCommand() *cobra.Command {
	o := stopOptions{}
	var remove, all bool
	w := waiting{action: member.ActionStop}
	cmd := &cobra.Command{
		Use:   "stop [NAME[/N]...]",
		Short: "Stop the cluster with its services, or single services",
		Long: "With names, the services or instances stop and stay stopped until 'dynast start' or the next 'dynast up'.\n" +
			"Without a name, all services stop first, those that need others before those, and then all processes of the cluster.",
		Args: cobra.ArbitraryArgs,
	}
	cmd.Flags().DurationVar(&o.timeout, "timeout", 20*time.Second, "without a name: time, after the services have stopped, after which the members that still run are killed")
	cmd.Flags().BoolVar(&o.keepServices, "keep-services", false, "without a name: leave the services running; the next 'dynast up' continues with them")
	cmd.Flags().BoolVar(&remove, "remove", false, "with names: also remove services that were added with 'dynast run'")
	cmd.Flags().BoolVar(&all, "all", false, "without a name: stop all hosts of the cluster, and not only this one")
	w.bind(cmd)
	c := a.WithCluster(cmd)
	cmd.ValidArgsFunction = c.completeService
	c.run(cmd, func(ctx context.Context, cfg *config.Config, names []string) error {
		err := errors.Join(
			without(cmd, len(names) == 0, "needs the name of a service", "remove", "wait"),
			without(cmd, len(names) > 0, "cannot be used with the name of a service", "timeout", "keep-services", "all"))
		switch {
		case err != nil:
			return err
		case o.timeout < 0:
			return &Error{Code: ExitUsage, Err: fmt.Errorf("stop: invalid --timeout %s: must not be negative", o.timeout)}
		case all:
			return stopAndPrint(ctx, stopHosts, cfg.DataDir, o, w.json)
		case len(names) == 0:
			return stopAndPrint(ctx, stop, cfg.DataDir, o, w.json)
		case remove:
			w.action = member.ActionRemove
		}
		return Act(ctx, cfg.DataDir, &wire.ActRequest{Action: string(w.action), Names: names}, w, os.Stdout)
	})
	return cmd
}

// stopOptions says how to stop a cluster.
type stopOptions struct {
	// timeout is how long the members may take after the services have stopped.
	timeout time.Duration
	// keepServices leaves the user's programs running.
	keepServices bool
}

// killPatience is how long a process may take to end after SIGKILL.
const killPatience = 5 * time.Second

// Stop ends the cluster of a data directory. It kills the processes that still run after the
// timeout. It returns nil only when every process is gone.
func Stop(ctx context.Context, dataDir string, timeout time.Duration, out io.Writer) error {
	s, err := stop(ctx, dataDir, stopOptions{timeout: timeout}, out)
	if err != nil {
		return err
	}
	return s.Render(out)
}

// stopped is the result of 'dynast stop' for a cluster.
type stopped struct {
	Schema  int    `json:"schema"`
	DataDir string `json:"data_dir"`
	// Processes is the number of processes that are gone. It is 0 if nothing ran.
	Processes int `json:"processes"`
	// Killed is true if processes had to be killed because the time was up.
	Killed bool `json:"killed"`
}

// Render prints how many processes are gone.
func (s *stopped) Render(out io.Writer) (err error) {
	how := "stopped"
	if s.Killed {
		how = "killed"
	}
	if s.Processes == 0 {
		_, err = fmt.Fprintf(out, "nothing runs in %s\n", s.DataDir)
	} else {
		_, err = fmt.Fprintf(out, "%s, %s %s gone\n", how, plural.Count(s.Processes, "process"), plural.Are(s.Processes))
	}
	return err
}

// stopAndPrint calls f, which is stop or stopHosts. Its notes do not get into the JSON.
func stopAndPrint(ctx context.Context, f func(context.Context, string, stopOptions, io.Writer) (*stopped, error), dataDir string, o stopOptions, asJSON bool) error {
	notes := os.Stdout
	if asJSON {
		notes = os.Stderr
	}
	s, err := f(ctx, dataDir, o, notes)
	if s != nil {
		err = errors.Join(printResult(os.Stdout, asJSON, s), err)
	}
	return err
}

// stop returns a result only when every process is gone.
func stop(ctx context.Context, dataDir string, o stopOptions, notes io.Writer) (*stopped, error) {
	dir, err := openDir(dataDir)
	if err != nil {
		return nil, err
	}
	s := &stopped{Schema: resultSchema, DataDir: dir.Path()}
	seen := map[proc.Identity]bool{}
	if n, err := remaining(dir, seen); err != nil {
		return nil, err
	} else if n == 0 {
		return s, nil
	}
	rs := reapers{}
	left, err := stopInOrder(ctx, dir, o, seen, rs, notes)
	if err != nil {
		return nil, err
	}
	if s.Killed = left > 0; s.Killed {
		fmt.Fprintf(notes, "%s did not exit within %s: killing what is left\n", plural.Count(left, "process"), o.timeout)
		if err := killAll(ctx, dir, seen, rs); err != nil {
			return nil, err
		}
	}
	if err := rs.await(ctx); err != nil {
		return nil, err
	}
	s.Processes = len(seen)
	return s, nil
}

// reapers is a set of reaper processes, which free the memory of dead members. A reaper ends soon
// after its member. Until then, the files that the member had mapped into memory are in use.
type reapers map[proc.Identity]bool

// note remembers the reapers of processes. A reaper can be found only while its process lives.
func (r reapers) note(of map[proc.Identity]bool) {
	all := proc.Reapers()
	for id := range of {
		if reaper, ok := all[id.PID]; ok {
			r[reaper] = true
		}
	}
}

// await returns when all reapers are gone. It kills those that take too long.
func (r reapers) await(ctx context.Context) error {
	deadline := time.Now().Add(killPatience)
	for id := range r {
		for alive(id) {
			if time.Now().After(deadline) {
				if err := proc.Signal(id, unix.SIGKILL); err != nil {
					return err
				}
			}
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// stopInOrder asks the leader to stop the cluster, until no process is left or the time is up. It
// asks again when another leader has taken over.
func stopInOrder(ctx context.Context, dir *datadir.Dir, o stopOptions, seen map[proc.Identity]bool, rs reapers, out io.Writer) (int, error) {
	deadline := time.Now().Add(o.timeout)
	services := servicesLeft{out: out}
	var asked proc.Identity // the leader that agreed to stop
	for {
		left, err := remaining(dir, seen)
		if err != nil || left == 0 || time.Now().After(deadline) {
			return left, err
		}
		if !alive(asked) {
			rs.note(seen)
			err := once(ctx, dir, func(ctx context.Context, a *admin) error {
				resp, err := a.Stop(ctx, &wire.StopRequest{KeepServices: o.keepServices})
				asked = leaderIn(resp)
				return err
			})
			if status.Code(err) == codes.PermissionDenied {
				return left, &Error{Code: core.ExitError, Err: errors.New(status.Convert(err).Message())}
			}
		}
		if !o.keepServices && services.any(ctx, dir) {
			deadline = time.Now().Add(o.timeout) // each service has its own stop timeout
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return left, ctx.Err()
		}
	}
}

// servicesLeft watches the services while they stop.
type servicesLeft struct {
	out  io.Writer
	next time.Time // of the next look
	left bool
	told bool
}

// any reports whether a service had a process at the last look.
func (s *servicesLeft) any(ctx context.Context, dir *datadir.Dir) bool {
	if time.Now().Before(s.next) {
		return s.left
	}
	s.next = time.Now().Add(200 * time.Millisecond)
	s.left = false
	_ = once(ctx, dir, func(ctx context.Context, a *admin) error {
		resp, err := a.Services(ctx, &wire.ServicesRequest{})
		if err != nil {
			return err
		}
		r, err := ps.Decode(resp.Json)
		if err != nil {
			return err
		}
		var running []string
		for _, service := range r.Services {
			for _, i := range service.Instances {
				if i.PID != 0 {
					running = append(running, i.ID)
				}
			}
		}
		s.left = len(running) > 0
		if s.left && !s.told {
			s.told = true
			fmt.Fprintf(s.out, "stopping the services: %s\n", strings.Join(running[:min(len(running), 10)], ", ")+more(len(running)-10))
		}
		return nil
	})
	return s.left
}

// more says how many names a list leaves out.
func more(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf(" and %d more", n)
}

// leaderIn returns the leader that agreed to stop. The caller must not ask it again, because a
// second request means that the leader must not wait any longer.
func leaderIn(resp *wire.StopResponse) proc.Identity {
	for _, m := range resp.GetMembers() {
		if m.Role == uint32(roster.Leader) {
			return proc.Identity{PID: int(m.Pid), StartTime: m.StartTime}
		}
	}
	return proc.Identity{}
}

// alive reports whether any thread of a process is alive. A process whose main thread has ended
// may still hold its locks.
func alive(id proc.Identity) bool {
	if id.PID == 0 {
		return false
	}
	p, err := proc.Open(id)
	if err == nil {
		_ = p.Close()
	}
	return err == nil
}

// remaining counts the processes of a data directory. It needs no leader: each member has its
// process id in its slot, and a member without a slot is found by its arguments.
func remaining(dir *datadir.Dir, seen map[proc.Identity]bool) (int, error) {
	left, err := owners(dir)
	for _, id := range left {
		seen[id] = true
	}
	return len(left), err
}

func owners(dir *datadir.Dir) ([]proc.Identity, error) {
	metas, err := dir.Metas()
	if errors.Is(err, fs.ErrPermission) {
		return nil, &Error{Code: core.ExitError, Err: fmt.Errorf("permission denied: only the user who runs the cluster%s and root may stop it", owner(dir))}
	}
	if err != nil {
		return nil, err
	}
	found := proc.Workers(dir.Path())
	for _, meta := range metas {
		id := proc.Identity{PID: meta.PID, StartTime: meta.StartTime}
		if alive(id) && !slices.Contains(found, id) {
			found = append(found, id)
		}
	}
	return found, nil
}

// owner names the user who runs the cluster, or returns an empty text if it is unknown.
func owner(dir *datadir.Dir) string {
	info, err := os.Stat(dir.Path())
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" (uid %d)", info.Sys().(*syscall.Stat_t).Uid)
}

func killAll(ctx context.Context, dir *datadir.Dir, seen map[proc.Identity]bool, rs reapers) error {
	deadline := time.Now().Add(killPatience)
	for {
		left, err := owners(dir)
		if err != nil {
			return err
		}
		for _, id := range left {
			seen[id] = true
		}
		rs.note(seen)
		for _, id := range left {
			if err := proc.Signal(id, unix.SIGKILL); err != nil {
				return err
			}
		}
		switch {
		case len(left) == 0:
			return nil
		case time.Now().After(deadline):
			return &Error{Code: core.ExitError, Err: fmt.Errorf("%s left after SIGKILL: %v", plural.Count(len(left), "process"), left)}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
