package services

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/shared/observe/events"
	"github.com/dynast-io/dynast/shared/observe/output"
	rules "github.com/dynast-io/dynast/shared/rules/services"
	"github.com/dynast-io/dynast/supervisor/health"
)

// errReleased means that this process does not supervise the services any more.
var errReleased = errors.New("this member no longer leads; try again")

// Manager implements member.Services.
type Manager struct {
	host  member.ServiceHost
	files files
	log   hclog.Logger

	mail     chan func()
	ctx      context.Context // ends when the programs are released
	cancel   context.CancelFunc
	released chan struct{} // closed when run takes no more mail
	// work counts the goroutines that start processes or end process trees.
	work sync.WaitGroup

	// Everything below belongs to the goroutine of run.
	core      *rules.Core
	desired   desired
	specs     map[string]config.Service
	instances map[rules.ID]*instance
	watches   map[watchKey]context.CancelFunc
	// opened are processes that are open and not watched yet: of starts, and of the store after a
	// takeover. One that is dead can still be asked for its exit status.
	opened map[rules.Process]*proc.Process
	// tags are the tags of opened, after a takeover.
	tags   map[proc.Tag]rules.Process
	notify *health.Notify
	clocks *clocks
	// unsaved are records that could not be written, for example because the disk is full.
	unsaved  map[rules.ID]bool
	starting int  // processes that are being started
	leaving  bool // Release was called
	stopped  []chan struct{}
	outputs  *outputs

	usages usages // other goroutines use it
	// where is this host, and placed are the services that run on one host at a time.
	where  where
	placed map[string]*placed
	engine *hosts.Client
	// yielding means that this host gives up all of placed, and then calls yielded.
	yielding bool
	yielded  []func()

	// store keeps the processes open for the next leader. It is nil while there are no services, or
	// if it could not be opened. Other goroutines use it too; it does not change after it is set.
	store atomic.Pointer[proc.Store]
}

// watchKey names a watched process.
type watchKey struct {
	id  rules.ID
	run uint64
	pid int
}

// instance is what the Manager knows of an instance in addition to the rules.
type instance struct {
	stored
	// written is the checksum of the record as it is on the disk, or 0 if that is not known.
	written uint64
	// endChecks ends the checks of the current process.
	endChecks context.CancelFunc
	// newStatus means that the status has changed since the record was written.
	newStatus bool
	unlimited []string // limits that could not be applied
}

// New returns a Manager that supervises at once. It is a member.NewServices.
func New(h member.ServiceHost) (member.Services, error) {
	ctx, cancel := context.WithCancel(context.Background())
	m := &Manager{
		host: h, files: files{h.Dir.Services()}, log: h.Logger,
		mail: make(chan func(), 256), ctx: ctx, cancel: cancel, released: make(chan struct{}),
		core:  rules.New(rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))),
		specs: map[string]config.Service{}, instances: map[rules.ID]*instance{}, unsaved: map[rules.ID]bool{},
	}
	m.placed, m.engine = map[string]*placed{}, hosts.DialLocal(h.Dir)
	m.watches, m.opened = map[watchKey]context.CancelFunc{}, map[rules.Process]*proc.Process{}
	m.clocks, m.outputs = newClocks(), newOutputs(m.log)
	if err := m.lead(); err != nil {
		m.release()
		return nil, err
	}
	m.work.Add(1)
	go m.run()
	return m, nil
}

// now is the clock of the rules. All processes of one boot share it.
func now() time.Duration { return proc.SinceBoot() }

// post queues a function for the goroutine of run. It does nothing after the release.
func (m *Manager) post(f func()) {
	select {
	case m.mail <- f:
	case <-m.released:
	}
}

// ask runs a function on the goroutine of run and waits for it.
func (m *Manager) ask(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case m.mail <- func() { f(); close(done) }:
	case <-m.released:
		return errReleased
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-m.released:
		return errReleased
	}
}

// event queues an event for the rules.
func (m *Manager) event(ev rules.Event) { m.post(func() { m.step(ev) }) }

const (
	// saveAgain is how often a record is written again that could not be written.
	saveAgain = time.Second
)

// run owns the rules until the release.
func (m *Manager) run() {
	defer m.work.Done()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for !m.leaving || m.starting > 0 {
		timer.Reset(m.sleep())
		select {
		case f := <-m.mail:
			f()
		case <-timer.C:
			m.tick()
		}
		m.tellYielded()
		m.tellStopped()
	}
	for id, i := range m.instances {
		if i.newStatus {
			m.save(id)
		}
	}
	close(m.released) // from here on, nobody waits for this goroutine
	m.release()
}

// sleep returns the time until something is due.
func (m *Manager) sleep() time.Duration {
	next := time.Minute
	if at, ok := m.core.Wake(); ok {
		next = min(next, at-now())
	}
	if at, ok := m.clocks.wake(); ok {
		next = min(next, time.Until(at))
	}
	for _, p := range m.placed {
		if at, ok := p.core.Wake(); ok {
			next = min(next, at-now())
		}
	}
	if len(m.unsaved) > 0 {
		next = min(next, saveAgain)
	}
	return max(next, 0)
}

func (m *Manager) tick() {
	if m.leaving {
		return
	}
	m.tickPlaced()
	for _, id := range slices.Collect(maps.Keys(m.unsaved)) {
		m.save(id)
	}
	for _, name := range m.clocks.due(time.Now()) {
		m.fired(name)
	}
	if at, ok := m.core.Wake(); ok && now() >= at {
		m.step(rules.Tick{})
	}
}

// step feeds an event to the rules and carries out the effects.
func (m *Manager) step(ev rules.Event) {
	for _, e := range m.core.Step(now(), ev) {
		m.do(e)
	}
	m.lookPlaced()
}

func (m *Manager) do(e rules.Effect) {
	switch e := e.(type) {
	case rules.Save:
		m.keep(e.Record)
		return
	case rules.SaveWish:
		m.keepWish(e.Service, e.Wish)
		return
	}
	if m.leaving {
		return // the next leader does it
	}
	switch e := e.(type) {
	case rules.Forget:
		m.forget(e.ID)
	case rules.Start:
		m.start(e.ID, e.Run)
	case rules.Adopt:
		m.watch(e.ID, e.Run, e.Process)
	case rules.Signal:
		m.signal(e.ID)
	case rules.Clear:
		m.clear(e.ID, e.Run)
	case rules.Check:
		m.check(e.ID, e.Run, e.Alive)
	case rules.EndChecks:
		m.endChecks(e.ID)
	case rules.Tell:
		m.tell(e)
	}
}

// keep saves a record. A start gets the service as it is configured now, and a new token.
func (m *Manager) keep(r rules.Record) {
	i := m.instances[r.ID]
	if i == nil {
		i = &instance{}
		m.instances[r.ID] = i
	}
	if r.Phase == rules.Starting && (i.Record.Phase != rules.Starting || i.Record.Run != r.Run) {
		i.Token, i.Service, i.Status = newToken(), m.specs[r.ID.Service], ""
		i.Cgroup, i.unlimited = m.makeCgroup(r.ID, r.Run, i.Service.Limits)
	}
	if r.Exits != i.Record.Exits {
		i.ExitAt = time.Now()
	}
	i.Record, i.BootID = r, m.host.BootID
	m.armFuse(r.ID)
	m.save(r.ID)
	if r.Phase == rules.Idle && r.Outcome != rules.Unfinished {
		go m.post(func() { m.ended(r.ID.Service) }) // after this step
	}
}

// save writes a record. If that fails, it is written again later.
func (m *Manager) save(id rules.ID) {
	i := m.instances[id]
	if i == nil {
		delete(m.unsaved, id)
		return
	}
	var err error
	i.written, err = m.files.writeRecord(i.stored, i.written)
	switch {
	case err == nil:
		delete(m.unsaved, id)
		i.newStatus = false
	case !m.unsaved[id]:
		m.unsaved[id] = true
		m.log.Error("cannot save the state of a service, trying again", "instance", id.String(), "error", err)
	}
}

func (m *Manager) keepWish(service string, w rules.Wish) {
	if m.desired.Wishes == nil {
		m.desired.Wishes = map[string]rules.Wish{}
	}
	if _, known := m.specs[service]; !known || w.Empty() {
		delete(m.desired.Wishes, service)
	} else {
		m.desired.Wishes[service] = w
	}
	m.saveDesired()
}

func (m *Manager) saveDesired() {
	m.desired.BootID = m.host.BootID
	if err := m.files.writeDesired(m.desired); err != nil {
		m.log.Error("cannot save which services shall run; a later leader would not know it", "error", err)
	}
}

func (m *Manager) forget(id rules.ID) {
	m.outputs.remove(id)
	delete(m.instances, id)
	delete(m.unsaved, id)
	m.armFuse(id)
	if err := m.files.forget(id); err != nil {
		m.log.Warn("cannot remove the record of a service", "instance", id.String(), "error", err)
	}
}

// watch reports the death of a process to the rules.
func (m *Manager) watch(id rules.ID, run uint64, p rules.Process) {
	m.outputs.add(id, m.files.output(id), m.outputLimits(id), false)
	key := watchKey{id, run, p.PID}
	opened := m.opened[p]
	delete(m.opened, p)
	if opened == nil {
		var err error
		opened, err = proc.Open(identity(p))
		if err == nil {
			m.keepOpened(m.instances[id].Token)(opened)
		} else {
			// It is dead, or without a watch its death would go unnoticed. In both cases the rules end
			// what is left of it.
			if !errors.Is(err, proc.ErrGone) {
				m.log.Error("cannot watch a process of a service", "instance", id.String(), "pid", p.PID, "error", err)
			}
			go m.died(key, nil, proc.Exit{})
			return
		}
	}
	ctx, cancel := context.WithCancel(m.ctx)
	m.watches[key] = cancel
	m.work.Add(1)
	go func() {
		defer m.work.Done()
		defer opened.Close()
		select {
		case <-opened.Done():
			m.died(key, opened, awaitExit(ctx, opened))
		case <-ctx.Done():
		}
	}()
}

// died reports the death of a watched process. It returns when that is saved. Until then the store
// has the process.
func (m *Manager) died(key watchKey, p *proc.Process, exit proc.Exit) {
	_ = m.ask(m.ctx, func() {
		defer m.dropOpened(p)
		if cancel := m.watches[key]; cancel != nil {
			cancel()
			delete(m.watches, key)
		}
		i := m.instances[key.id]
		if i == nil || i.Record.Process.PID != key.pid {
			return // the program named another main process
		}
		// It may have done so just before it died, and its message still waits.
		if m.notify != nil && i.Record.Run == key.run && (i.Record.Phase == rules.Up || i.Record.Phase == rules.Ending) {
			if to := moved(i.Record.Process, i.Token, m.notify.Pending()); to != (rules.Process{}) {
				m.step(rules.Notified{ID: key.id, Run: key.run, Main: to})
				return
			}
		}
		m.step(rules.Exited{ID: key.id, Run: key.run, Exit: toExit(exit)})
	})
}

func (m *Manager) outputLimits(id rules.ID) output.Limits {
	l := m.specs[id.Service].Log
	return output.Limits{MaxBytes: int64(l.MaxSize), MaxBackups: l.MaxBackups}
}

func toExit(e proc.Exit) rules.Exit {
	out := rules.Exit{Known: e.Known, Code: e.Code}
	if e.Signal != 0 {
		if out.Signal = unix.SignalName(e.Signal); out.Signal == "" {
			out.Signal = fmt.Sprintf("signal %d", int(e.Signal)) // a real-time signal
		}
	}
	return out
}

func identity(p rules.Process) proc.Identity {
	return proc.Identity{PID: p.PID, StartTime: p.StartTime}
}

func named(id proc.Identity) rules.Process {
	return rules.Process{PID: id.PID, StartTime: id.StartTime}
}

// signal sends the stop signal to the main process.
func (m *Manager) signal(id rules.ID) {
	i := m.instances[id]
	name := i.Service.Stop.Signal
	if s, ok := m.specs[id.Service]; ok {
		name = s.Stop.Signal
	}
	if err := m.send(i, name); err != nil && !errors.Is(err, proc.ErrGone) {
		m.log.Warn("cannot send the stop signal", "instance", id.String(), "signal", name, "error", err)
	}
}

func (m *Manager) send(i *instance, name string) error {
	sig := unix.SignalNum("SIG" + name)
	if sig == 0 {
		return fmt.Errorf("there is no signal %q", name)
	}
	if i.Record.Process == (rules.Process{}) {
		return fmt.Errorf("%s has no process", i.Record.ID)
	}
	return proc.Signal(identity(i.Record.Process), sig)
}

// tell reports to operators.
func (m *Manager) tell(e rules.Tell) {
	i := m.instances[e.ID]
	pid := 0
	if i != nil {
		pid = i.Record.Process.PID
	}
	args := []any{"instance", e.ID.String(), "pid", pid}
	if e.Reason != "" {
		args = append(args, "reason", e.Reason)
	}
	m.log.Log(events.LevelOf(events.ServiceKind(string(e.Kind))).Hclog(), "service "+string(e.Kind), args...)
	m.host.Tell(string(e.Kind), e.ID.String(), pid, e.Reason)
}

// Release implements member.Services.
func (m *Manager) Release() {
	m.post(func() { m.leaving = true })
	<-m.released
	m.work.Wait()
}

// release ends what this process does for the programs. The programs run on.
func (m *Manager) release() {
	m.cancel()
	if m.notify != nil {
		m.notify.Close()
	}
	m.outputs.close()
	m.engine.Close()
	for _, p := range m.opened {
		_ = p.Close()
	}
}

// StopAll implements member.Services.
func (m *Manager) StopAll(ctx context.Context) error {
	done := make(chan struct{})
	if err := m.ask(ctx, func() {
		m.stopped = append(m.stopped, done)
		m.desired.Stopping = true
		m.saveDesired()
		// The store is one of the services, and giving up an ownership needs it.
		m.yielding = true
		m.yielded = append(m.yielded, func() { m.step(rules.StopAll{}) })
		m.lookPlaced()
	}); err != nil {
		return err
	}
	return m.await(ctx, done)
}

// await waits until done is closed.
func (m *Manager) await(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-m.released:
		return errReleased
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tellStopped answers StopAll when no process is left.
func (m *Manager) tellStopped() {
	if !m.desired.Stopping || len(m.yielded) > 0 || !m.core.Stopped() {
		return
	}
	m.desired.Stopped, m.desired.Stopping = true, false
	m.saveDesired()
	if len(m.stopped) == 0 {
		m.host.Stopped() // the leader before had begun it
	}
	for _, done := range m.stopped {
		close(done)
	}
	m.stopped = nil
}
