package services

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/cgroup"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/observe/ps"
)

// running is a running instance in a report.
type running struct {
	main  int    // the pid of its main process
	group string // the directory of its control group, or empty
}

// usage is what a process tree uses.
type usage struct {
	rss uint64 // pages that processes share count for each
	cpu time.Duration
}

// usages measures the process trees of instances. It does so without the goroutine of run, because
// it takes some time with many processes.
type usages struct {
	mu   sync.Mutex
	last map[string]cpuSample // by the name of the instance
}

// cpuSample is the processor time of an instance at the report before.
type cpuSample struct {
	pid int
	cpu time.Duration
	at  time.Time
}

// fill completes a report with what the running instances use. They are named as in the report.
func (u *usages) fill(r *ps.Report, trees map[string]running) {
	u.mu.Lock()
	defer u.mu.Unlock()
	measured, now := measure(trees), time.Now()
	last := u.last
	u.last = map[string]cpuSample{}
	for s := range r.Services {
		for k := range r.Services[s].Instances {
			i := &r.Services[s].Instances[k]
			m, ok := measured[i.ID]
			if !ok {
				continue
			}
			if before := last[i.ID]; before.pid == i.PID {
				// A process that another one than its parent reaps takes its time along.
				m.cpu = max(m.cpu, before.cpu)
				if now.After(before.at) {
					i.CPU = 100 * float64(m.cpu-before.cpu) / float64(now.Sub(before.at))
				}
			}
			i.RSSBytes, i.CPUSeconds = m.rss, m.cpu.Seconds()
			u.last[i.ID] = cpuSample{i.PID, m.cpu, now}
		}
	}
}

// measure returns what process trees use, without those whose main process is gone. The members of
// a control group are known. All other trees are found in one look at all processes.
func measure(trees map[string]running) map[string]usage {
	out := make(map[string]usage, len(trees))
	rest := map[string]running{}
	for name, t := range trees {
		if t.group == "" {
			rest[name] = t
			continue
		}
		g := cgroup.At(t.group)
		pids, err := g.Procs()
		loads := proc.LoadsOf(pids)
		if err != nil || len(loads) == 0 {
			rest[name] = t
			continue
		}
		sum := total(loads)
		if cpu, err := g.CPU(); err == nil {
			sum.cpu = cpu // that of dead processes too
		}
		out[name] = sum
	}
	if len(rest) == 0 {
		return out
	}
	all, err := proc.Loads()
	if err != nil {
		return out
	}
	f := newForest(all)
	for name, t := range rest {
		if loads := f.tree(t.main); len(loads) > 0 {
			out[name] = total(loads)
		}
	}
	return out
}

func total(loads []proc.Load) usage {
	var sum usage
	for _, l := range loads {
		sum.rss += l.RSSBytes
		sum.cpu += l.CPU
	}
	return sum
}

// forest are all processes of the host, by parent and by session.
type forest struct {
	byPID     map[int]proc.Load
	children  map[int][]proc.Load
	bySession map[int][]proc.Load
	own       int // the session of this process
}

func newForest(all []proc.Load) *forest {
	f := &forest{byPID: make(map[int]proc.Load, len(all)), children: map[int][]proc.Load{}, bySession: map[int][]proc.Load{}}
	f.own, _ = unix.Getsid(0)
	for _, l := range all {
		f.byPID[l.PID] = l
		f.children[l.PPID] = append(f.children[l.PPID], l)
		f.bySession[l.Session] = append(f.bySession[l.Session], l)
	}
	return f
}

// tree returns the main process of an instance, the processes of its session, and all their
// descendants. It is empty if the main process is gone.
func (f *forest) tree(main int) []proc.Load {
	root, ok := f.byPID[main]
	if !ok {
		return nil
	}
	seen := map[int]bool{}
	var out []proc.Load
	add := func(loads ...proc.Load) {
		for _, l := range loads {
			if !seen[l.PID] {
				seen[l.PID] = true
				out = append(out, l)
			}
		}
	}
	add(root)
	if root.Session > 0 && root.Session != f.own {
		add(f.bySession[root.Session]...)
	}
	for k := 0; k < len(out); k++ {
		add(f.children[out[k].PID]...)
	}
	return out
}
