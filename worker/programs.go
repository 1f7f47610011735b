package worker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/observe/events"
	"github.com/dynast-io/dynast/shared/observe/ps"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/worker/files"
	"github.com/dynast-io/dynast/worker/operate"
	"github.com/dynast-io/dynast/worker/state"
)

// programs holds the supervisor of the user's services. Only a leader has one, and only if there
// are services.
type programs struct {
	*state.Shared
	make member.NewServices
	// engine is the service that is the store of this host in a cluster of several hosts.
	engine  func(*config.Config, datadir.Host) config.Service
	sockets *member.Sockets
	files   *files.Budget
	record  func(events.Event)
	// configured are the services of the configuration file. It is nil in a member that did not
	// read that file; then the services of the leader before go on.
	configured []config.Service

	// again means that this process executes its program again when the members have stopped.
	again    atomic.Bool
	stopping atomic.Bool
	fetching atomic.Bool
	shared   atomic.Pointer[[]string] // the names of the leader's sockets
	mu       sync.Mutex
	services member.Services // nil if there is none
	failed   error           // why there is none although there should be
	released bool
}

// errNotLeading is the answer to a command that reached a member which does not lead any more.
var errNotLeading = operate.ErrNotLeading

// leads reports whether this member leads and has not begun to hand over.
func (p *programs) leads() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.released && p.Leading.Load()
}

// begin supervises the services, if there are any. It is called when clients are served.
func (p *programs) begin() {
	if len(p.configured) == 0 && !p.any() && len(p.builtin()) == 0 {
		return
	}
	if _, err := p.get(true); err != nil {
		p.Log.Error("cannot supervise the services", "error", err)
	}
}

// builtin returns the engine, if this host has one.
func (p *programs) builtin() []config.Service {
	host, err := p.Dir.ReadHost()
	if errors.Is(err, os.ErrNotExist) || host.Removed || host.Halted {
		return nil
	}
	if err != nil {
		p.Log.Error("the store of this host cannot run", "error", err)
		return nil
	}
	cfg := *p.Settings.Now()
	cfg.Log = p.Settings.Start.Log // another level is no reason to restart the engine
	return []config.Service{p.engine(&cfg, host)}
}

// any reports whether an earlier leader had services.
func (p *programs) any() bool {
	_, err := os.Stat(filepath.Join(p.Dir.Services(), "desired.json"))
	return err == nil
}

// current returns the supervisor, or nil if there are no services.
func (p *programs) current() member.Services {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.services
}

// get returns the supervisor. If there is none, it makes one or returns nil.
func (p *programs) get(create bool) (member.Services, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.released || !p.Leading.Load() {
		return nil, errNotLeading
	}
	// After a failure every command tries again, because an operator may have removed the cause.
	if p.services != nil || !create && p.failed == nil {
		return p.services, nil
	}
	p.services, p.failed = p.make(member.ServiceHost{
		Config: p.Settings.Start, Configured: p.configured, Builtin: p.builtin, Dir: p.Dir, BootID: p.Self.BootID,
		Logger: p.Logs.Logger("services"), Sockets: p.sockets, Fit: p.files.Fit, Use: p.files.Use, Tell: p.tell, Stopped: p.stopped,
	})
	return p.services, p.failed
}

func (p *programs) tell(kind, subject string, pid int, detail string) {
	text := subject
	if detail != "" {
		text += ": " + detail
	}
	p.record(events.Event{Epoch: p.CurrentEpoch(), Kind: events.ServiceKind(kind), PID: pid, Detail: text})
}

// stopped continues a stop of the cluster that the leader before had begun.
func (p *programs) stopped() {
	p.Post(core.StopRequested{Reason: "the leader before was stopping the cluster"})
}

// configure applies the services of a configuration that was read again. With dry it only says
// what that would change.
func (p *programs) configure(ctx context.Context, services []config.Service, dry bool) (member.ServiceChanges, error) {
	if services == nil {
		services = []config.Service{}
	}
	if current := p.current(); current != nil {
		return current.Configure(ctx, services, dry)
	}
	var changes member.ServiceChanges
	for _, s := range services {
		changes.Added = append(changes.Added, s.Name)
	}
	if dry || len(services) == 0 {
		return changes, nil
	}
	p.mu.Lock()
	p.configured = services
	p.mu.Unlock()
	_, err := p.get(true)
	return changes, err
}

// stop stops the cluster: first the services, then the members. A second call does not wait for
// the services, which then run on.
func (p *programs) stop(reason string, keep bool) {
	p.again.Store(false)
	services := p.current()
	if services == nil || p.stopping.Swap(true) {
		p.Post(core.StopRequested{Reason: reason})
		return
	}
	if keep {
		go func() {
			// Nobody would renew the ownership of these, and another host would run them too.
			if err := services.StopPlaced(context.Background()); err != nil {
				p.Log.Warn("services that run on one host at a time may run on two", "error", err)
			}
			p.Post(core.StopRequested{Reason: reason})
		}()
		return
	}
	go func() {
		p.Log.Info("stopping the services", "reason", reason)
		if err := services.StopAll(context.Background()); err != nil {
			p.Log.Warn("this member cannot stop the services; the next leader does it", "error", err)
			return
		}
		p.Post(core.StopRequested{Reason: reason})
	}()
}

// share brings the sockets that all members share up to date. names are those of the leader. A
// socket can only be passed over a Unix socket, so a member that lacks one fetches it.
func (p *programs) share(names []string) {
	p.shared.Store(&names)
	for _, name := range p.sockets.All().Names() {
		if member.OfServices(name) && !slices.Contains(names, name) {
			p.sockets.Remove(name)
		}
	}
	p.fetchLacking()
}

// fetchLacking fetches sockets if this member lacks some, unless that is under way.
func (p *programs) fetchLacking() {
	if p.lacking() && !p.fetching.Swap(true) {
		go func() {
			before := p.shared.Load()
			p.fetch()
			p.fetching.Store(false)
			if p.shared.Load() != before {
				p.fetchLacking() // the leader has opened another one meanwhile
			}
		}()
	}
}

// lacking reports whether the leader has a socket that this member lacks.
func (p *programs) lacking() bool {
	return slices.ContainsFunc(*p.shared.Load(), func(name string) bool { return p.sockets.File(name) == nil })
}

// fetch gets the sockets that this member lacks from the leader. If that fails, the leader's next
// configuration starts it again, and without them a later leader opens the sockets itself.
func (p *programs) fetch() {
	ctx, cancel := context.WithTimeout(context.Background(), operate.HandoffTimeout)
	defer cancel()
	c, err := p.Dir.DialHandoff(ctx)
	if err != nil {
		p.Log.Warn("cannot get the sockets of the services", "error", err)
		return
	}
	defer c.Close()
	resp, files, err := requestHandoff(c, &wire.HandoffRequest{Sockets: true})
	if err != nil {
		p.Log.Warn("cannot get the sockets of the services", "error", err)
		return
	}
	for i, file := range files {
		if i < len(resp.Listeners) && p.sockets.Add(member.Listener{Name: resp.Listeners[i], File: file}) == nil {
			continue
		}
		_ = file.Close() // this member has it already
	}
}

// release ends the supervision, for a hand-over or before this process exits. The programs run on.
func (p *programs) release() {
	p.mu.Lock()
	p.released = true
	services := p.services
	p.mu.Unlock()
	if services != nil {
		services.Release()
	}
}

// refresh looks at the built-in services again, after this host has changed its mode.
func (p *programs) refresh(ctx context.Context) error {
	services, err := p.get(true)
	if err != nil {
		return err
	}
	return services.Refresh(ctx)
}

// engineState describes the engine.
type engineState struct {
	// runs means that a process of it is left, or may be started.
	runs bool
	// restarts counts the restarts, and reason says why it does not run.
	restarts int
	reason   string
}

// engineNow asks the supervisor about the engine.
func (p *programs) engineNow(ctx context.Context) (engineState, error) {
	var s engineState
	services, err := p.get(false)
	if err != nil || services == nil {
		return s, err
	}
	raw, err := services.Report(ctx)
	if err != nil {
		return s, err
	}
	r, err := ps.Decode(raw)
	if err != nil {
		return s, err
	}
	for _, service := range r.Services {
		if service.Name != member.EngineService {
			continue
		}
		s.runs = true
		for _, i := range service.Instances {
			s.restarts, s.reason = i.Restarts, i.Reason
			if i.LastExit != nil && s.reason == "" {
				s.reason = i.LastExit.Reason
			}
		}
	}
	return s, nil
}

// killEngine ends the engine. It starts again.
func (p *programs) killEngine(ctx context.Context) error {
	services, err := p.get(true)
	if err != nil {
		return err
	}
	_, err = services.Act(ctx, member.ServiceCommand{Action: member.ActionKill, Names: []string{member.EngineService}})
	return err
}
