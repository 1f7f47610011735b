package services

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a driver that keeps what is saved and carries nothing out. A test gives the events.
type rig struct {
	t       *testing.T
	core    *Core
	now     time.Duration
	specs   []Spec
	records map[ID]Record
	wishes  map[string]Wish
	pids    int
}

func newRig(t *testing.T, specs ...Spec) *rig {
	t.Helper()
	for k := range specs {
		s := &specs[k]
		if s.Instances == 0 {
			s.Instances = 1
		}
		if s.StopTimeout == 0 {
			s.StopTimeout = 10 * time.Second
		}
		if s.BackoffFirst == 0 {
			s.BackoffFirst, s.BackoffMax = 100*time.Millisecond, 10*time.Second
		}
	}
	return &rig{t: t, core: New(rand.New(rand.NewPCG(1, 1))), now: time.Hour, specs: specs, records: map[ID]Record{}, wishes: map[string]Wish{}, pids: 100}
}

// begin returns a rig whose Core leads, and checks what it did at once.
func begin(t *testing.T, want string, specs ...Spec) *rig {
	t.Helper()
	r := newRig(t, specs...)
	r.step(Lead{Specs: r.specs}, want)
	return r
}

func parse(name string) ID {
	service, n, ok := strings.Cut(name, "/")
	id := ID{Service: service, N: 1}
	if ok {
		_, _ = fmt.Sscan(n, &id.N)
	}
	return id
}

// step gives an event. want lists the effects that matter, separated by commas: start, signal,
// clear, check, alive and forget, and the reports except those of started and stopped.
func (r *rig) step(ev Event, want string) {
	r.t.Helper()
	var got []string
	saved := map[ID]bool{}
	for _, e := range r.core.Step(r.now, ev) {
		switch e := e.(type) {
		case Save:
			r.records[e.Record.ID], saved[e.Record.ID] = e.Record, true
		case SaveWish:
			r.wishes[e.Service] = e.Wish
		case Forget:
			delete(r.records, e.ID)
			got = append(got, "forget "+e.ID.String())
		case Start:
			if r.records[e.ID].Phase != Starting || r.records[e.ID].Run != e.Run {
				r.t.Errorf("%s is started without a saved intent", e.ID)
			}
			got = append(got, "start "+e.ID.String())
		case Signal:
			got = append(got, "signal "+e.ID.String())
		case Clear:
			got = append(got, "clear "+e.ID.String())
		case Check:
			got = append(got, map[bool]string{false: "check ", true: "alive "}[e.Alive]+e.ID.String())
		case Tell:
			if e.Kind != ToldStarted && e.Kind != ToldStopped {
				got = append(got, fmt.Sprintf("%s: %s", e.ID, e.Kind))
			}
		}
	}
	if s := strings.Join(got, ", "); s != want {
		r.t.Fatalf("after %T%+v\n got %q\nwant %q", ev, ev, s, want)
	}
}

func (r *rig) run(name string) uint64 { return r.records[parse(name)].Run }

func (r *rig) started(name, want string) {
	r.t.Helper()
	r.pids++
	r.step(Started{ID: parse(name), Run: r.run(name), Process: Process{PID: r.pids, StartTime: 1}}, want)
}

// up reports that an instance has started, which has no ready check.
func (r *rig) up(names ...string) {
	r.t.Helper()
	for _, name := range names {
		r.started(name, "")
	}
}

func (r *rig) exited(name string, code int, want string) {
	r.t.Helper()
	r.step(Exited{ID: parse(name), Run: r.run(name), Exit: Exit{Known: true, Code: code}}, want)
}

func (r *rig) cleared(name, want string) {
	r.t.Helper()
	r.step(Cleared{ID: parse(name), Run: r.run(name)}, want)
}

// ends reports that a process and its tree are gone.
func (r *rig) ends(name, want string) {
	r.t.Helper()
	r.exited(name, 0, "clear "+parse(name).String())
	r.cleared(name, want)
}

// crashes lets a process fail and be cleared. It returns how long the next start is delayed.
func (r *rig) crashes(name string) time.Duration {
	r.t.Helper()
	id := parse(name)
	r.step(Exited{ID: id, Run: r.run(name), Exit: Exit{Known: true, Code: 1}}, fmt.Sprintf("clear %s, %s: exited", id, id))
	delay := r.records[id].NotBefore - r.now
	if delay == 0 {
		r.cleared(name, "start "+id.String())
		return 0
	}
	r.cleared(name, "")
	if at, ok := r.core.Wake(); !ok || at != r.records[id].NotBefore {
		r.t.Fatalf("the next wake is at %s, want %s", at, r.records[id].NotBefore)
	}
	r.now = r.records[id].NotBefore - 1
	r.step(Tick{}, "")
	r.now++
	r.step(Tick{}, "start "+id.String())
	return delay
}

func (r *rig) ready(name string) {
	r.t.Helper()
	id := parse(name)
	r.step(Checked{ID: id, Run: r.run(name), OK: true}, id.String()+": ready")
}

func (r *rig) state(name string, want State) {
	r.t.Helper()
	for _, v := range r.core.View() {
		if v.ID == parse(name) {
			if v.State != want {
				r.t.Fatalf("%s is %s (%s), want %s", name, v.State, v.Waits, want)
			}
			return
		}
	}
	r.t.Fatalf("there is no %s", name)
}

// takeover replaces the leader. found changes what the new one finds; by default, every process
// of a record lives.
func (r *rig) takeover(want string, found func(*Found)) {
	r.t.Helper()
	r.lead(Lead{}, want, found)
}

func (r *rig) lead(lead Lead, want string, found func(*Found)) {
	r.t.Helper()
	r.core = New(rand.New(rand.NewPCG(2, 2)))
	lead.Specs, lead.Wishes = r.specs, maps.Clone(r.wishes)
	for _, id := range sortedIDs(r.records) {
		f := Found{Record: r.records[id], Main: r.records[id].Process}
		if found != nil {
			found(&f)
		}
		lead.Found = append(lead.Found, f)
	}
	r.step(lead, want)
}
