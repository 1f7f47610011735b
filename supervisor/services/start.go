package services

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/cgroup"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/observe/output"
	rules "github.com/dynast-io/dynast/shared/rules/services"
	"github.com/dynast-io/dynast/supervisor/process"
)

// startsAtOnce bounds how many processes are started at the same time. More would not be faster.
const startsAtOnce = 4

var startSlots = make(chan struct{}, startsAtOnce)

// startOrder is what a start needs, apart from the Manager's state.
type startOrder struct {
	id      rules.ID
	service config.Service
	token   string
	cgroup  string // its directory, or empty
	sockets []*os.File
	notify  string
	store   string // the value of DYNAST_ENDPOINTS
	files   files
	opened  func(*proc.Process) // called as soon as the process exists
	host    string              // the name of this host, or empty
	// fence is the fencing number of a service that runs on one host at a time, and late is when it must
	// not be started any more. 0 means that there is no such time.
	fence int64
	late  time.Duration
}

// start starts the process of an instance on a goroutine of its own.
func (m *Manager) start(id rules.ID, run uint64) {
	i := m.instances[id]
	if m.unsaved[id] {
		m.event(rules.StartFailed{ID: id, Run: run, Reason: "its state could not be saved: see the log"})
		return
	}
	order := startOrder{id: id, service: i.Service, token: i.Token, cgroup: i.Cgroup, files: m.files, notify: m.notifyPath(), store: m.endpoints()}
	order.opened = m.keepOpened(i.Token)
	order.host = m.where.name
	if p := m.placed[id.Service]; p != nil {
		order.fence, order.late = p.core.Fence, max(p.core.Late(), 1)
	}
	var err error
	if order.sockets, err = m.socketsOf(i.Service); err != nil {
		m.event(rules.StartFailed{ID: id, Run: run, Reason: err.Error()})
		return
	}
	m.starting++
	m.work.Add(1)
	go func() {
		defer m.work.Done()
		startSlots <- struct{}{}
		p, err := order.start(m.ctx)
		if err != nil && order.cgroup != "" {
			_ = cgroup.At(order.cgroup).Remove() // each start has its own
		}
		<-startSlots
		// The goroutine of run takes mail until no start is under way.
		m.mail <- func() {
			m.starting--
			if err != nil {
				m.step(rules.StartFailed{ID: id, Run: run, Reason: err.Error()})
				return
			}
			m.outputs.add(id, m.files.output(id), m.outputLimits(id), true)
			main := named(p.Identity())
			m.opened[main] = p
			m.step(rules.Started{ID: id, Run: run, Process: main})
			if !m.leaving { // otherwise the next leader watches it
				m.closeOpened()
			}
		}
	}()
}

// start starts the process.
func (o *startOrder) start(ctx context.Context) (*proc.Process, error) {
	lock, err := o.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	program, err := o.program()
	if err != nil {
		return nil, err
	}
	out, err := output.Open(o.files.output(o.id))
	if err != nil {
		return nil, err
	}
	defer out.Close()
	program.Stdout, program.Lock, program.Opened = out, lock, o.opened
	if o.cgroup != "" {
		group, err := cgroup.At(o.cgroup).OpenDir()
		if err != nil {
			return nil, err
		}
		defer group.Close()
		program.Cgroup = group
	}
	if o.late != 0 && now() >= o.late {
		return nil, errors.New("the start took so long that another host may run it soon")
	}
	return process.StartProgram(program)
}

// lockPatience is how long a start waits for leftovers of the instance to be gone.
const lockPatience = 5 * time.Second

// lock takes the lock of the instance. If another process has it, that process is a leftover
// which the rules do not know, and it is ended.
func (o *startOrder) lock(ctx context.Context) (*os.File, error) {
	path := o.files.lock(o.id)
	lock, err := proc.TakeInstanceLock(path)
	if !errors.Is(err, proc.ErrLocked) {
		return lock, err
	}
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	if err := makeTree(o.files, o.id, proc.Identity{}, false, o.token, o.cgroup).KillTree(ctx); err != nil {
		return nil, fmt.Errorf("a process of %s is left and cannot be ended: %w", o.id, err)
	}
	return proc.TakeInstanceLock(path)
}

func (o *startOrder) program() (process.Program, error) {
	s := o.service
	p := process.Program{Dir: s.Dir, Extra: o.sockets, NoNewPrivileges: s.Security.NoNewPrivileges, ListenPID: len(o.sockets) > 0}
	p.Argv = s.Command
	if s.Script != "" {
		p.Argv = []string{"/bin/sh", "-c", s.Script}
	}
	if len(p.Argv) == 0 {
		return p, errors.New("it has no command")
	}
	p.Path = p.Argv[0]
	var err error
	if p.Env, err = o.environment(); err != nil {
		return p, err
	}
	if p.Credential, err = process.LookupCredential(s.User, s.Group); err != nil {
		return p, err
	}
	if s.Umask >= 0 {
		p.Umask = &s.Umask
	}
	p.Limits = rlimits(s.Limits)
	p.DropCapabilities, err = capabilities(s.Security.DropCapabilities)
	return p, err
}

// environment returns the environment of the program: that of this process, then env_file, then
// env, then what dynast says.
func (o *startOrder) environment() ([]string, error) {
	env := map[string]string{}
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		if !private(name) {
			env[name] = value
		}
	}
	if o.service.EnvFile != "" {
		more, err := config.ReadEnvFile(o.service.EnvFile)
		if err != nil {
			return nil, err
		}
		maps.Copy(env, more)
	}
	maps.Copy(env, o.service.Env)
	env["SERVICE"], env["INSTANCE"], env[tokenVariable] = o.id.Service, strconv.Itoa(o.id.N), o.token
	env["DYNAST_ENDPOINTS"] = o.store
	if o.host != "" {
		env["DYNAST_HOST"] = o.host
	}
	if o.service.Hosts.One {
		env["FENCE"] = strconv.FormatInt(o.fence, 10)
	}
	if o.notify != "" {
		env["NOTIFY_SOCKET"] = o.notify
	}
	if usec := watchdog(o.service); usec != "" {
		env["WATCHDOG_USEC"] = usec
	}
	if len(o.sockets) > 0 {
		var names []string
		for _, l := range o.service.Listen {
			names = append(names, l.Name)
		}
		env["LISTEN_FDS"], env["LISTEN_FDNAMES"] = strconv.Itoa(len(o.sockets)), strings.Join(names, ":")
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		out = append(out, name+"="+env[name])
	}
	return out, nil
}

// private reports whether a variable of this process is not for programs: it belongs to the
// members, or is about the supervision of dynast itself.
func private(name string) bool {
	switch name {
	case member.Handshake.MagicCookieKey, member.ReadyFileEnv, member.SourceEnv,
		"LISTEN_FDS", "LISTEN_FDNAMES", "DYNAST_HOST", "FENCE", "LISTEN_PID", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID":
		return true
	}
	return strings.HasPrefix(name, "DYNAST_WORKER") || strings.HasPrefix(name, "PLUGIN_")
}
