package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/observe/events"
	"github.com/dynast-io/dynast/shared/prove/bench"
)

// beProgram is a supervised program. The first thing that it does is to append its pid and the time to
// a file. It ends with a signal only.
func beProgram(path string) error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(f, "%d %d\n", os.Getpid(), now.Nano()); err != nil {
		return err
	}
	select {}
}

// monotonic is the clock of beProgram, in nanoseconds.
func monotonic() int64 {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // this clock always exists
	return now.Nano()
}

// begun is one start of a program.
type begun struct {
	pid int
	at  int64
}

// starts reads what a program wrote.
func starts(path string) ([]begun, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []begun
	for s := bufio.NewScanner(f); s.Scan(); {
		pid, at, _ := strings.Cut(s.Text(), " ")
		p, err := strconv.Atoi(pid)
		t, err2 := strconv.ParseInt(at, 10, 64)
		if err := errors.Join(err, err2); err != nil {
			return nil, err
		}
		out = append(out, begun{p, t})
	}
	return out, nil
}

// field is a set of programs under one supervisor.
type field struct {
	dir      string
	programs []program
}

func newField(dir, self string, n int) (*field, error) {
	f := &field{dir: filepath.Join(dir, "starts")}
	if err := os.Mkdir(f.dir, 0o700); err != nil {
		return nil, err
	}
	for i := range n {
		name := fmt.Sprintf("p%04d", i)
		f.programs = append(f.programs, program{name, []string{self, "program", filepath.Join(f.dir, name)}})
	}
	return f, nil
}

// await waits until program i has started count times, and returns the last start.
func (f *field) await(ctx context.Context, i, count int) (last begun, err error) {
	name := f.programs[i].name
	err = until(ctx, servicesLimit, "wait for "+name, func() error {
		all, err := starts(filepath.Join(f.dir, name))
		if err != nil {
			return err
		}
		if len(all) < count {
			return fmt.Errorf("it has started %d times and not %d", len(all), count)
		}
		last = all[len(all)-1]
		return nil
	})
	return last, err
}

// census counts the living processes of all programs, and the programs with more than one.
func (f *field) census() (living, doubled int, err error) {
	for _, p := range f.programs {
		all, err := starts(filepath.Join(f.dir, p.name))
		if err != nil {
			return 0, 0, err
		}
		n := 0
		for _, b := range all {
			if _, err := proc.Identify(b.pid); err == nil {
				n++
			}
		}
		living += n
		if n > 1 {
			doubled++
		}
	}
	return living, doubled, nil
}

// end kills everything that was started for the field, also what a killed supervisor has left: runit and
// s6 have a process for each program, which would start it again.
func (f *field) end() error {
	for deadline := time.Now().Add(endTimeout); ; {
		left, err := proc.WithEnvironment(fieldVariable, filepath.Dir(f.dir))
		if err != nil || len(left) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d processes in %s cannot be ended", len(left), filepath.Dir(f.dir))
		}
		for _, id := range left {
			if err := proc.Signal(id, unix.SIGKILL); err != nil && !errors.Is(err, proc.ErrGone) {
				return err
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// restarted is the result for one supervisor.
type restarted struct {
	name string
	// back are the times from SIGKILL to the first instruction of the new process, in order.
	back []time.Duration
	// orphans run while the supervisor is dead. doubled are the programs that run twice after it
	// was started again.
	programs, orphans, doubled int
	memory                     uint64 // anonymous memory of the supervisor's processes, in bytes
	err                        error
}

const (
	servicesKilled    = 20
	servicesFollowers = 2
	// servicesLimit bounds every wait.
	servicesLimit  = 5 * time.Minute
	supervisorWait = 3 * time.Second
)

// kills measures one supervisor.
func kills(ctx context.Context, name string, s supervisor, f *field) (r restarted) {
	r = restarted{name: name, programs: len(f.programs)}
	main, err := s.start(f.programs)
	if err != nil {
		r.err = err
		return r
	}
	defer func() { r.err = errors.Join(r.err, s.stop(), f.end()) }()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for i := range f.programs {
		if _, err := f.await(ctx, i, 1); err != nil {
			r.err = err
			return r
		}
	}
	wait(ctx, supervisorWait) // s6 and supervisord count a young process as one that failed
	if r.memory, r.err = memoryOf(ctx, main.Pid, f); r.err != nil {
		return r
	}
	for i := range f.programs {
		first, err := f.await(ctx, i, 1)
		if err == nil {
			at := monotonic()
			if err = unix.Kill(first.pid, unix.SIGKILL); err == nil {
				var next begun
				next, err = f.await(ctx, i, 2)
				r.back = append(r.back, time.Duration(next.at-at))
			}
		}
		if err != nil {
			r.err = err
			return r
		}
	}
	slices.Sort(r.back)
	if err := main.Kill(); err != nil {
		r.err = err
		return r
	}
	wait(ctx, supervisorWait/3)
	r.orphans, _, _ = f.census()
	if d, ok := s.(*dynastServices); ok {
		_ = d.cmd.Wait() // its followers lead already, so nothing is started again
	} else if err := s.again(); err != nil {
		r.err = err
		return r
	}
	wait(ctx, supervisorWait)
	_, r.doubled, r.err = f.census()
	return r
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// memoryOf is the anonymous memory of a process and its descendants, without the programs.
func memoryOf(ctx context.Context, root int, f *field) (uint64, error) {
	programs := map[int]bool{}
	for _, p := range f.programs {
		all, _ := starts(filepath.Join(f.dir, p.name))
		for _, b := range all {
			programs[b.pid] = true
		}
	}
	entries, err := proc.List()
	if err != nil {
		return 0, err
	}
	within := map[int]bool{root: true}
	for range 4 { // runit and s6 have a process between
		for _, e := range entries {
			if within[e.PPID] {
				within[e.PID] = true
			}
		}
	}
	maps.DeleteFunc(within, func(pid int, _ bool) bool { return programs[pid] })
	return anonymous(ctx, slices.Collect(maps.Keys(within)))
}

// anonymous is the anonymous memory of processes.
func anonymous(ctx context.Context, pids []int) (uint64, error) {
	resting, err := bench.Idle(ctx, pids, 0)
	if err != nil {
		return 0, err
	}
	return resting.Servers.AnonBytes, nil
}

// many is the result with many services, for dynast alone.
type many struct {
	services     int
	started      time.Duration // until all run
	processor    float64       // of one processor, while nothing happens
	memory       uint64        // more anonymous memory than without services, of all members
	leaderKilled time.Duration // until all are supervised again
	allKilled    time.Duration // from the start of "up" until all are adopted
	restartedAny int           // programs that were restarted by that
}

// crowd measures dynast with many services.
func crowd(ctx context.Context, r *runner, n int, rest time.Duration) (m many, err error) {
	m = many{services: n}
	base, err := emptyMemory(ctx, r)
	if err != nil {
		return m, err
	}
	dir, err := r.directory(dynastName)
	if err != nil {
		return m, err
	}
	f, err := newField(dir, r.self, n)
	if err != nil {
		return m, err
	}
	d := &dynastServices{r: r, dir: dir}
	began := time.Now()
	if _, err := d.start(f.programs); err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, d.stop(), f.end()) }()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for i := range f.programs {
		if _, err := f.await(ctx, i, 1); err != nil {
			return m, err
		}
	}
	m.started = time.Since(began)
	wait(ctx, supervisorWait)
	pids, err := d.members(ctx)
	if err != nil {
		return m, err
	}
	resting, err := bench.Idle(ctx, pids, rest)
	if err != nil {
		return m, err
	}
	m.processor = resting.Servers.CPUSeconds / resting.Seconds
	m.memory = resting.Servers.AnonBytes - min(base, resting.Servers.AnonBytes)
	// The leader is killed.
	leader, err := proc.ReadOwner(filepath.Join(d.dir, "data", "cluster.lock"))
	if err != nil {
		return m, err
	}
	at := time.Now()
	if err := proc.Signal(leader.Identity, unix.SIGKILL); err != nil {
		return m, err
	}
	if m.leaderKilled, err = d.adopted(ctx, at, n); err != nil {
		return m, err
	}
	// All members are killed.
	if pids, err = d.members(ctx); err != nil {
		return m, err
	}
	for _, pid := range pids {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	wait(ctx, supervisorWait/3)
	at = time.Now()
	if err := d.again(); err != nil {
		return m, err
	}
	if m.allKilled, err = d.adopted(ctx, at, n); err != nil {
		return m, err
	}
	for _, p := range f.programs {
		all, err := starts(filepath.Join(f.dir, p.name))
		if err != nil {
			return m, err
		}
		m.restartedAny += len(all) - 1
	}
	return m, nil
}

// emptyMemory is the anonymous memory of all members without services.
func emptyMemory(ctx context.Context, r *runner) (total uint64, err error) {
	dir, err := r.directory(dynastName)
	if err != nil {
		return 0, err
	}
	d := &dynastServices{r: r, dir: dir}
	if _, err := d.start(nil); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	wait(ctx, 2*supervisorWait)
	pids, err := d.members(ctx)
	if err != nil {
		return 0, err
	}
	return anonymous(ctx, pids)
}

// members returns the pids of all members, once all followers are in sync.
func (d *dynastServices) members(ctx context.Context) ([]int, error) {
	run := &running{name: dynastName, dataDir: filepath.Join(d.dir, "data")}
	err := d.r.full(ctx, run, servicesFollowers)
	return run.pids, err
}

// adopted returns the time from a moment until n services were adopted, by the cluster's events.
func (d *dynastServices) adopted(ctx context.Context, since time.Time, n int) (took time.Duration, err error) {
	err = until(ctx, servicesLimit, "wait until all services are adopted", func() error {
		out, err := exec.CommandContext(ctx, d.r.dynast, "events", "--json", "--config", d.config).Output()
		if err != nil {
			return fmt.Errorf("dynast events: %w", err)
		}
		seen, last := map[string]bool{}, since
		for line := range strings.Lines(string(out)) {
			var e events.Event
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				return err
			}
			if e.Kind == events.ServiceAdopted && e.At.After(since) {
				seen[e.Detail] = true
				if e.At.After(last) {
					last = e.At
				}
			}
		}
		if len(seen) < n {
			return fmt.Errorf("%d of %d services were adopted", len(seen), n)
		}
		took = last.Sub(since)
		return nil
	})
	return took, err
}

// measureServices runs the whole measurement and returns it as Markdown.
func measureServices(ctx context.Context, r *runner, o *options) (string, error) {
	n, few, lots := servicesKilled, 100, 1000
	if o.smoke {
		n, few, lots = 2, 3, 5
	}
	peers := []struct {
		name, needs string
		make        func(dir string) supervisor
	}{
		{dynastName, r.dynast, func(dir string) supervisor { return &dynastServices{r: r, dir: dir} }},
		{"runit", "runsvdir", func(dir string) supervisor { return &foreground{dir: dir, write: runDirectories("runit")} }},
		{"s6", "s6-svscan", func(dir string) supervisor { return &foreground{dir: dir, write: runDirectories("s6")} }},
		{"supervisord", "supervisord", func(dir string) supervisor { return &foreground{dir: dir, write: supervisordFiles} }},
		{"pm2", "pm2-runtime", func(dir string) supervisor { return &foreground{dir: dir, write: pm2Files("pm2-runtime")} }},
	}
	var b strings.Builder
	fmt.Fprintf(&b, "| supervisor | a killed program runs again: median, p90 | memory with %d programs | after SIGKILL of the supervisor | after its restart |\n| --- | ---: | ---: | --- | --- |\n", n)
	for _, p := range peers {
		if _, err := exec.LookPath(p.needs); err != nil {
			say("%s is not here, so it is left out (%s is missing)", p.name, p.needs)
			fmt.Fprintf(&b, "| %s | not installed | | | |\n", p.name)
			continue
		}
		say("%s: %d programs", p.name, n)
		dir, err := r.directory(p.name)
		if err != nil {
			return "", err
		}
		f, err := newField(dir, r.self, n)
		if err != nil {
			return "", err
		}
		res := kills(ctx, p.name, p.make(dir), f)
		if res.err != nil {
			return "", fmt.Errorf("%s: %w", p.name, res.err)
		}
		after := fmt.Sprintf("%d of %d run twice", res.doubled, n)
		if p.name == dynastName {
			after = fmt.Sprintf("none is needed; %d run twice", res.doubled)
		}
		fmt.Fprintf(&b, "| %s | %s, %s ms | %.1f MiB | %d of %d run | %s |\n", p.name, millis(res.back[len(res.back)/2]), millis(res.back[len(res.back)*9/10]),
			float64(res.memory)/(1<<20), res.orphans, n, after)
	}
	fmt.Fprintf(&b, "\n| dynast with many services (`sleep`-like programs) | %d | %d |\n| --- | ---: | ---: |\n", few, lots)
	var got []many
	for _, n := range []int{few, lots} {
		say("dynast: %d services", n)
		m, err := crowd(ctx, r, n, o.rest)
		if err != nil {
			return "", err
		}
		got = append(got, m)
	}
	row := func(what string, f func(many) string) {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", what, f(got[0]), f(got[1]))
	}
	row("all run after", func(m many) string { return fmt.Sprintf("%.1f s", m.started.Seconds()) })
	row("processor while idle", func(m many) string { return fmt.Sprintf("%.2f %%", m.processor*100) })
	row("more memory of all members, per service", func(m many) string { return fmt.Sprintf("%.1f KiB", float64(m.memory)/1024/float64(m.services)) })
	row("leader killed: all supervised again after", func(m many) string { return millis(m.leaderKilled) + " ms" })
	row("all members killed, then `up`: all adopted after", func(m many) string { return millis(m.allKilled) + " ms" })
	row("programs that these kills restarted", func(m many) string { return strconv.Itoa(m.restartedAny) })
	return b.String(), nil
}

func millis(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Microseconds())/1000) }
