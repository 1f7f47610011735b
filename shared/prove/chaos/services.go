package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/observe/output"
	"github.com/dynast-io/dynast/shared/observe/ps"
	"github.com/dynast-io/dynast/shared/rules/services"
)

// programs are the services of a run, and what was recorded about them in the current round.
type programs struct {
	c       *cluster
	stats   *ServiceStats
	dir     string   // of the traces
	address string   // of the socket
	ids     []string // the instances that run all the time
	extra   string   // the additional instance that exists only in a rolling restart

	watching  sync.WaitGroup
	stopWatch context.CancelFunc
	led, took []time.Duration // see traces.gaps; of all rounds

	mu sync.Mutex
	t  traces
	// unanswered is what the watch found.
	unanswered []string
}

// newPrograms prepares the services of an own cluster.
func newPrograms(cfg Config, c *cluster, stats *ServiceStats) (*programs, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	p := &programs{
		c: c, stats: stats, dir: filepath.Join(c.work, "traces"), address: fmt.Sprintf("127.0.0.1:%d", port),
		ids: []string{roleAnswer + "/1", roleStubborn + "/1", roleCalm + "/1"}, extra: fmt.Sprintf("%s/%d", roleBurst, cfg.Services+1),
	}
	for n := range cfg.Services {
		p.ids = append(p.ids, fmt.Sprintf("%s/%d", roleBurst, n+1))
	}
	stats.Instances = len(p.ids) + 2 // and the task, and the program that ends by itself
	return p, p.clear()
}

// blocks returns the services as a part of a configuration file.
func (p *programs) blocks(cfg Config) string {
	var b strings.Builder
	block := func(role, more string) {
		fmt.Fprintf(&b, `
service %q {
  command = [%q, %q]
  env     = { %s = %q, %s = %q }
  log {
    max_size    = "64KiB"
    max_backups = 1000
  }
  backoff {
    first = "10ms"
    max   = "100ms"
    limit = 0
  }
  %s
}
`, role, cfg.Binary, ProgramCommand, roleVariable, role, traceVariable, p.dir, more)
	}
	block(roleBurst, fmt.Sprintf("instances = %d", cfg.Services))
	block(roleAnswer, fmt.Sprintf("ready { notify = true }\n  listen \"http\" { address = %q }", p.address))
	block(roleStubborn, `stop { timeout = "300ms" }`)
	block(roleCalm, "")
	block(roleOnce, `restart = "never"`)
	block(roleCoded, "")
	return b.String()
}

// clear removes the traces of the programs, and their output. No program may run.
func (p *programs) clear() error {
	p.mu.Lock()
	p.t = traces{seen: map[runKey]sight{}}
	p.unanswered = nil
	p.mu.Unlock()
	outputs, err := filepath.Glob(filepath.Join(p.c.dataDir, "services", "*", "*", "output*"))
	for _, path := range outputs {
		err = errors.Join(err, os.Remove(path))
	}
	return errors.Join(err, os.RemoveAll(p.dir), os.Mkdir(p.dir, 0o700))
}

// note appends a line with the time to the list of what the run did.
func (p *programs) note(format string, args ...any) error {
	return appendLine(filepath.Join(p.dir, actionsFile), fmt.Sprintf("%d %s", time.Now().UnixNano(), fmt.Sprintf(format, args...)))
}

// await waits until a condition on the services is true.
func (p *programs) await(ctx context.Context, what string, ok func(*ps.Report) bool) error {
	deadline := time.Now().Add(p.c.patience)
	for {
		last := p.c.restartIfDead()
		if last == nil {
			var r *ps.Report
			if r, last = p.look(ctx); last == nil && ok(r) {
				return nil
			}
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(deadline):
			return fmt.Errorf("wait until %s: %w %s: %w", what, errTimeout, p.c.patience, cmpError(last, errors.New("it did not become true")))
		}
		pause(ctx, 20*time.Millisecond)
	}
}

func cmpError(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// settled waits until all instances are ready, the task has ended, and no instance is additional.
func (p *programs) settled(ctx context.Context) error {
	return p.await(ctx, "all services are ready", func(r *ps.Report) bool {
		for _, id := range p.ids {
			if i, ok := instanceOf(r, id); !ok || i.State != string(services.StateReady) {
				return false
			}
		}
		_, more := instanceOf(r, p.extra)
		return !more && p.taskEnded(r)
	})
}

// taskEnded reports whether the task has ended. It may have failed if nobody saw how it ended.
func (p *programs) taskEnded(r *ps.Report) bool {
	i, ok := instanceOf(r, roleOnce+"/1")
	if !ok || i.State != string(services.StateFailed) {
		return ok && i.State == string(services.StateDone)
	}
	t, err := p.traces()
	if err != nil {
		return false
	}
	runs := t.runs()[roleOnce+"/1"]
	if len(runs) == 0 {
		return false
	}
	last := runs[len(runs)-1]
	return t.mayBeUnknown(last, time.Now().UnixNano())
}

func instanceOf(r *ps.Report, id string) (ps.Instance, bool) {
	for _, i := range r.Find(id) {
		if i.ID == id {
			return i, true
		}
	}
	return ps.Instance{}, false
}

// look asks the leader about the services, and records what it says about exits.
func (p *programs) look(ctx context.Context) (*ps.Report, error) {
	r, err := p.c.operator.Services(ctx, p.c.dataDir)
	if err != nil {
		return nil, err
	}
	now := r.At.UnixNano()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range r.Services {
		for _, i := range s.Instances {
			if i.PID == 0 || i.State != string(services.StateReady) && i.State != string(services.StateRunning) {
				continue
			}
			seen := p.t.seen[runKey{i.ID, i.PID}]
			seen.last = max(seen.last, now)
			if i.LastExit != nil {
				seen.exited, seen.code, seen.signal = true, i.LastExit.Code, i.LastExit.Signal
			}
			p.t.seen[runKey{i.ID, i.PID}] = seen
		}
	}
	return r, nil
}

// begin waits until all services run, and begins to watch them.
func (p *programs) begin(ctx context.Context) error {
	if err := p.settled(ctx); err != nil {
		return err
	}
	ctx, p.stopWatch = context.WithCancel(context.WithoutCancel(ctx))
	every := func(d time.Duration, f func(context.Context)) {
		p.watching.Go(func() {
			for pause(ctx, d) {
				f(ctx)
			}
		})
	}
	every(5*time.Millisecond, p.connect)
	every(20*time.Millisecond, p.ask)
	every(50*time.Millisecond, func(ctx context.Context) { _, _ = p.look(ctx) })
	return nil
}

// connect opens a connection to the socket and closes it.
func (p *programs) connect(context.Context) {
	conn, err := net.DialTimeout("tcp", p.address, p.c.patience)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.Connections++
	switch {
	case err == nil:
		_ = conn.Close()
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ECONNRESET): // reset: the last holder just closed the socket
		p.t.refused = append(p.t.refused, time.Now().UnixNano())
	default:
		p.unanswered = append(p.unanswered, fmt.Sprintf("%d: no connection: %v", time.Now().UnixNano(), err))
	}
}

// ask opens a connection and waits for an answer. The connection may break, because the program
// with it may be killed, but it must not hang.
func (p *programs) ask(context.Context) {
	conn, err := net.DialTimeout("tcp", p.address, p.c.patience)
	if err != nil {
		return // connect reports it
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(p.c.patience)) // an open connection accepts a deadline
	_, err = io.ReadAll(conn)
	p.mu.Lock()
	defer p.mu.Unlock()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		p.unanswered = append(p.unanswered, fmt.Sprintf("%d: a connection was not answered within %s", time.Now().UnixNano(), p.c.patience))
	} else if err == nil {
		p.stats.Answered++
	}
}

// quiet ends the watch.
func (p *programs) quiet() {
	if p.stopWatch != nil {
		p.stopWatch()
		p.watching.Wait()
	}
}

// traces returns what was recorded in this round.
func (p *programs) traces() (*traces, error) {
	raw, err := os.ReadFile(filepath.Join(p.dir, journalFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	p.mu.Lock()
	t := p.t
	t.killed, t.orders, t.blind, t.dead, t.refused = slices.Clone(t.killed), slices.Clone(t.orders), slices.Clone(t.blind), slices.Clone(t.dead), slices.Clone(t.refused)
	p.mu.Unlock()
	for line := range strings.Lines(string(raw)) {
		e, err := parseEntry(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, err
		}
		t.journal = append(t.journal, e)
	}
	return &t, nil
}

// left returns the processes that remain of the programs. A process that has just been started
// may not have its environment yet, but it has the lock.
func (p *programs) left() ([]proc.Identity, error) {
	var found []proc.Identity
	locks, err := filepath.Glob(filepath.Join(p.c.dataDir, "services", "*", "*", "lock"))
	for _, lock := range locks {
		holders, failed := proc.LockHolders(lock)
		err = errors.Join(err, failed)
		for _, h := range holders {
			if !h.CloseOnExec { // not a member
				found = append(found, h.Identity)
			}
		}
	}
	paths, globbed := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range paths {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if dir, ok := proc.Variable(pid, traceVariable); !ok || dir != p.dir {
			continue
		}
		if id, err := proc.Identify(pid); err == nil && !slices.Contains(found, id) {
			found = append(found, id)
		}
	}
	return found, errors.Join(err, globbed)
}

// end kills the programs that are left. They outlive the members.
func (p *programs) end() error {
	p.quiet()
	for deadline := time.Now().Add(p.c.patience); ; {
		left, err := p.left()
		if err != nil || len(left) == 0 {
			return err
		}
		for _, id := range left {
			err = errors.Join(err, Signal(id, unix.SIGKILL))
		}
		if err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d programs still exist after SIGKILL: %v", len(left), left)
		}
		pause(context.Background(), 10*time.Millisecond)
	}
}

// check checks a round whose cluster was stopped.
func (p *programs) check(ctx context.Context) (wrongs, error) {
	t, err := p.traces()
	if err != nil {
		return nil, err
	}
	w := wrongs{}
	checkRuns(t, p.stats, w)
	checkRefused(t, p.stats, w)
	for _, text := range p.unanswered {
		w.add(CheckSockets, "%s", text)
	}
	led, took := t.gaps()
	p.led, p.took = append(p.led, led...), append(p.took, took...)
	p.stats.Restarts, p.stats.RestartMedianMS, p.stats.RestartWorstMS = summarize(p.led)
	p.stats.TakeoverRestarts, p.stats.TakeoverRestartMedianMS, p.stats.TakeoverRestartWorstMS = summarize(p.took)
	return w, p.checkOutput(ctx, w)
}

func summarize(d []time.Duration) (n int, medianMS, worstMS float64) {
	if len(d) == 0 {
		return 0, 0, 0
	}
	slices.Sort(d)
	return len(d), float64(d[len(d)/2]) / 1e6, float64(d[len(d)-1]) / 1e6
}

// checkOutput compares the output of the programs with what they have written.
func (p *programs) checkOutput(ctx context.Context, w wrongs) error {
	paths, err := filepath.Glob(filepath.Join(p.c.dataDir, "services", "*", "*", "output.log"))
	if err != nil {
		return err
	}
	l := lines{last: map[string]uint64{}, partial: map[string]string{}}
	for _, path := range paths {
		r := output.NewReader(path)
		err := r.Read(ctx, func(line output.Line) error {
			if line.Gap {
				p.stats.LinesWrong++
				w.add(CheckOutput, "%s: output is missing at %d", path, line.Position)
			}
			l.check(path, line.Text, p.stats, w)
			return nil
		})
		r.Close()
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
	}
	processes, err := filepath.Glob(filepath.Join(p.dir, "*"+linesSuffix))
	if err != nil {
		return err
	}
	for _, path := range processes {
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if len(raw) == 0 {
			continue // killed before its first line
		}
		written, err := strconv.ParseUint(string(raw), 10, 64)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		l.end(strings.TrimSuffix(filepath.Base(path), linesSuffix), written, p.stats, w)
	}
	return nil
}
