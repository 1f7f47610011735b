package services

import (
	"maps"
	"math"
	"slices"
	"testing"
	"time"
)

func sortedIDs(m map[ID]Record) []ID { return slices.SortedFunc(maps.Keys(m), compareIDs) }

func TestStartsAllInstances(t *testing.T) {
	r := begin(t, "start a/1, start a/2, start b/1", Spec{Name: "b"}, Spec{Name: "a", Instances: 2})
	r.state("a/1", StateStarting)
	r.up("a/1", "a/2", "b")
	r.state("a/2", StateReady)
	if r.core.Stopped() {
		t.Error("Stopped with three processes")
	}
}

func TestStartsWhenNeedsAreReady(t *testing.T) {
	r := begin(t, "start db/1, start db/2", Spec{Name: "web", Needs: []string{"db"}}, Spec{Name: "db", Instances: 2, ReadyCheck: true})
	r.started("db/1", "check db/1")
	r.started("db/2", "check db/2")
	r.ready("db/1")
	r.state("web", StateWaiting)
	r.step(Checked{ID: parse("db/2"), Run: r.run("db/2"), Reason: "connection refused"}, "")
	r.step(Checked{ID: parse("db/2"), Run: r.run("db/2"), OK: true}, "db/2: ready, start web/1")
	r.up("web")
	// A dependent waits through restarts, but runs on.
	r.step(Exited{ID: parse("db/1"), Run: r.run("db/1")}, "clear db/1, db/1: exited")
	r.state("web", StateReady)
}

func TestStartsAfterSuccess(t *testing.T) {
	r := begin(t, "start migrate/1", Spec{Name: "web", After: []string{"migrate"}}, Spec{Name: "migrate", Restart: Never})
	r.up("migrate")
	r.exited("migrate", 0, "clear migrate/1, migrate/1: exited, migrate/1: done, start web/1")
	r.cleared("migrate", "")
	r.state("migrate", StateDone)
}

func TestDoesNotStartAfterFailure(t *testing.T) {
	r := begin(t, "start migrate/1", Spec{Name: "web", After: []string{"migrate"}}, Spec{Name: "migrate", Restart: Never})
	r.up("migrate")
	r.exited("migrate", 1, "clear migrate/1, migrate/1: exited, migrate/1: failed")
	r.cleared("migrate", "")
	r.state("migrate", StateFailed)
	r.state("web", StateWaiting)
	r.step(StartWanted{Service: "migrate"}, "start migrate/1")
	r.up("migrate")
	r.exited("migrate", 0, "clear migrate/1, migrate/1: exited, migrate/1: done, start web/1")
}

func TestStopAllStopsDependentsFirst(t *testing.T) {
	r := begin(t, "start db/1", Spec{Name: "web", Needs: []string{"app"}}, Spec{Name: "app", Needs: []string{"db"}}, Spec{Name: "db"})
	r.started("db", "start app/1")
	r.started("app", "start web/1")
	r.up("web")
	r.step(StopAll{}, "signal web/1")
	r.exited("web", 0, "clear web/1")
	r.cleared("web", "signal app/1")
	r.ends("app", "signal db/1")
	r.step(StartWanted{Service: "web"}, "")
	r.ends("db", "")
	if !r.core.Stopped() {
		t.Error("not stopped")
	}
	r.state("web", StateStopped)
}

func TestStopAllWaitsForAStart(t *testing.T) {
	r := begin(t, "start db/1", Spec{Name: "web", Needs: []string{"db"}}, Spec{Name: "db"})
	r.started("db", "start web/1")
	r.step(StopAll{}, "")
	r.started("web", "signal web/1")
	r.ends("web", "signal db/1")
}

func TestStopsServicesInOrder(t *testing.T) {
	r := begin(t, "start db/1", Spec{Name: "web", Needs: []string{"db"}}, Spec{Name: "db"})
	r.started("db", "start web/1")
	r.up("web")
	r.step(StopWanted{Service: "web"}, "signal web/1")
	r.step(StopWanted{Service: "db"}, "")
	r.ends("web", "signal db/1")
}

// within reports whether a delay is a documented one with its jitter.
func within(got, want time.Duration) bool {
	return float64(got) >= 0.75*float64(want) && float64(got) <= 1.25*float64(want)
}

func TestBackoffGrows(t *testing.T) {
	r := begin(t, "start web/1", Spec{Name: "web", BackoffFirst: 100 * time.Millisecond, BackoffMax: time.Second})
	for n, want := range []time.Duration{0, 100, 200, 400, 800, 1000, 1000} {
		r.up("web")
		if got := r.crashes("web"); !within(got, want*time.Millisecond) {
			t.Fatalf("the delay after failure %d is %s, want %s", n+1, got, want*time.Millisecond)
		}
	}
	if got := r.records[parse("web")].Restarts; got != 7 {
		t.Errorf("%d restarts were counted, want 7", got)
	}
}

func TestBackoffDecays(t *testing.T) {
	r := begin(t, "start web/1", Spec{Name: "web"})
	for range 4 {
		r.up("web")
		r.crashes("web")
	}
	r.up("web")
	r.now += 10 * time.Second // one half-life: 4 failures count as 2
	if got := r.crashes("web"); !within(got, 200*time.Millisecond) {
		t.Errorf("the delay is %s, want that of the third failure", got)
	}
	if got := r.records[parse("web")].Failures; math.Abs(got-3) > 0.01 {
		t.Errorf("%f failures, want 3", got)
	}
	r.up("web")
	r.now += time.Hour
	if got := r.crashes("web"); got != 0 {
		t.Errorf("the first failure after an hour is delayed by %s", got)
	}
}

func TestBackoffState(t *testing.T) {
	r := begin(t, "start web/1", Spec{Name: "web"})
	for range 2 {
		r.step(StartFailed{ID: parse("web"), Run: r.run("web"), Reason: "no such file"}, map[uint64]string{
			1: "web/1: not started, start web/1", 2: "web/1: not started"}[r.run("web")])
	}
	r.state("web", StateBackoff)
	r.step(StartWanted{Service: "web"}, "start web/1")
}

func TestLimit(t *testing.T) {
	r := begin(t, "start web/1", Spec{Name: "web", Limit: 3})
	for range 2 {
		r.up("web")
		r.crashes("web")
	}
	r.up("web")
	r.exited("web", 1, "clear web/1, web/1: exited, web/1: failed")
	r.cleared("web", "")
	r.state("web", StateFailed)
	r.takeover("", func(f *Found) { f.Main = Process{} })
	r.state("web", StateFailed)
	r.step(StartWanted{Service: "web"}, "start web/1")
	r.up("web")
	if got := r.crashes("web"); got != 0 {
		t.Errorf("after an operator's start, the first failure is delayed by %s", got)
	}
}

func TestRestartPolicies(t *testing.T) {
	for _, c := range []struct {
		policy   Policy
		ok, fail string
	}{
		{Always, "start p/1", "start p/1"},
		{OnFailure, "", "start p/1"},
		{Never, "", ""},
	} {
		for code, want := range []string{c.ok, c.fail} {
			r := begin(t, "start p/1", Spec{Name: "p", Restart: c.policy})
			r.up("p")
			tells := ", p/1: exited"
			switch {
			case code == 0 && c.policy != Always:
				tells += ", p/1: done"
			case code == 1 && c.policy == Never:
				tells += ", p/1: failed"
			}
			r.step(Exited{ID: parse("p"), Run: r.run("p"), Exit: Exit{Known: true, Code: code}}, "clear p/1"+tells)
			r.cleared("p", want)
		}
	}
	r := begin(t, "start p/1", Spec{Name: "p", Restart: OnFailure})
	r.up("p")
	r.step(Exited{ID: parse("p"), Run: r.run("p")}, "clear p/1, p/1: exited")
	r.cleared("p", "start p/1") // an unknown status counts as a failure
	r.step(StartFailed{ID: parse("p"), Run: r.run("p")}, "p/1: not started")
}

func TestSchedule(t *testing.T) {
	r := begin(t, "", Spec{Name: "job", Restart: Never, Scheduled: true})
	r.state("job", StateWaiting)
	r.step(Due{Service: "job"}, "start job/1")
	r.step(Due{Service: "job"}, "job/1: skipped")
	r.up("job")
	r.step(Due{Service: "job"}, "job/1: skipped")
	r.exited("job", 0, "clear job/1, job/1: exited, job/1: done")
	r.step(Due{Service: "job"}, "job/1: skipped")
	r.cleared("job", "")
	r.state("job", StateDone)
	r.step(Due{Service: "job"}, "start job/1")
	r.up("job")
	r.exited("job", 1, "clear job/1, job/1: exited, job/1: failed")
	r.cleared("job", "")
	r.state("job", StateFailed)
	r.step(StartWanted{Service: "job"}, "start job/1")
	r.up("job")
	r.succeeds("job")
	if got := r.records[parse("job")].Skipped; got != 3 {
		t.Errorf("%d runs were skipped, want 3", got)
	}
	r.step(StopWanted{Service: "job", Instance: 1}, "")
	r.step(Due{Service: "job"}, "") // a stopped instance is not skipped, it is stopped
	r.step(StopWanted{Service: "job"}, "")
	r.step(Due{Service: "job"}, "")
	r.step(Due{Service: "nothing"}, "")
}

// succeeds lets a one-shot succeed.
func (r *rig) succeeds(name string) {
	r.t.Helper()
	id := parse(name).String()
	r.exited(name, 0, "clear "+id+", "+id+": exited, "+id+": done")
	r.cleared(name, "")
}

func TestScheduledRestartsOnFailure(t *testing.T) {
	r := begin(t, "", Spec{Name: "job", Restart: OnFailure, Scheduled: true})
	r.step(Due{Service: "job"}, "start job/1")
	r.up("job")
	r.crashes("job")
	r.up("job")
	r.step(StopWanted{Service: "job"}, "signal job/1")
	r.ends("job", "")
	r.step(StartWanted{Service: "job"}, "start job/1")
}

func TestStopAndStart(t *testing.T) {
	r := begin(t, "start web/1, start web/2", Spec{Name: "web", Instances: 2})
	r.up("web/1", "web/2")
	r.step(StopWanted{Service: "web", Instance: 2}, "signal web/2")
	r.state("web/2", StateStopping)
	r.ends("web/2", "")
	r.state("web/2", StateStopped)
	r.takeover("web/1: adopted", nil)
	r.state("web/2", StateStopped)
	r.step(StopWanted{Service: "web"}, "signal web/1")
	r.ends("web/1", "")
	r.step(StartWanted{Service: "web", Instance: 2}, "start web/2")
	r.up("web/2")
	r.state("web/1", StateStopped)
	r.step(StartWanted{Service: "web"}, "start web/1")
}

func TestStartWhileItStops(t *testing.T) {
	for _, s := range []Spec{{Name: "p"}, {Name: "p", Restart: Never}, {Name: "p", Restart: Never, Scheduled: true}} {
		first := "start p/1"
		if s.Scheduled {
			first = ""
		}
		r := begin(t, first, s)
		if s.Scheduled {
			r.step(Due{Service: "p"}, "start p/1")
		}
		r.up("p")
		r.step(StopWanted{Service: "p"}, "signal p/1")
		r.step(StartWanted{Service: "p"}, "")
		r.ends("p", "start p/1")
	}
}

func TestStartWhileItClears(t *testing.T) {
	r := begin(t, "start p/1", Spec{Name: "p", Restart: Never})
	r.up("p")
	r.exited("p", 1, "clear p/1, p/1: exited, p/1: failed")
	r.step(StartWanted{Service: "p"}, "")
	r.cleared("p", "start p/1")
}

func TestRestart(t *testing.T) {
	r := begin(t, "start web/1, start web/2", Spec{Name: "web", Instances: 2})
	r.up("web/1", "web/2")
	r.step(RestartWanted{Service: "web", Instance: 2}, "signal web/2")
	r.takeover("web/1: adopted, signal web/2, web/2: adopted", nil)
}

func TestRestartOfOneInstance(t *testing.T) {
	r := begin(t, "start web/1, start web/2", Spec{Name: "web", Instances: 2})
	r.up("web/1", "web/2")
	r.step(RestartWanted{Service: "web", Instance: 2}, "signal web/2")
	r.ends("web/2", "start web/2")
	r.up("web/2")
	r.step(RestartWanted{Service: "web"}, "signal web/1, signal web/2")
	r.ends("web/1", "start web/1")
	r.ends("web/2", "start web/2")
	r.step(RestartWanted{Service: "web"}, "") // both are starting with what is older
	r.started("web/1", "signal web/1")
	r.started("web/2", "signal web/2")
}

// The records that spare an instance from a restart are saved before the wish. A leader that
// dies in between leaves no restart of all instances.
func TestRestartOfOneInstanceIsSavedInOrder(t *testing.T) {
	r := begin(t, "start web/1, start web/2", Spec{Name: "web", Instances: 2})
	r.up("web/1", "web/2")
	effects := r.core.Step(r.now, RestartWanted{Service: "web", Instance: 2})
	for n, e := range effects {
		if s, ok := e.(Save); ok {
			r.records[s.Record.ID] = s.Record
		}
		if _, ok := e.(SaveWish); ok {
			for _, later := range effects[n:] {
				if s, ok := later.(Save); ok {
					t.Errorf("the record of %s is saved after the wish", s.Record.ID)
				}
			}
			break
		}
	}
	r.records[parse("web/2")] = func(x Record) Record { x.Phase, x.Why = Up, 0; return x }(r.records[parse("web/2")])
	r.takeover("web/1: adopted, web/2: adopted", nil)
	r.step(RestartWanted{Service: "web"}, "signal web/1, signal web/2")
}

func TestRestartAfterWishesWereForgotten(t *testing.T) {
	r := begin(t, "start web/1", Spec{Name: "web"})
	r.up("web")
	for range 2 {
		r.step(RestartWanted{Service: "web"}, "signal web/1")
		r.ends("web", "start web/1")
		r.up("web")
	}
	r.lead(Lead{Fresh: true}, "web/1: adopted", nil)
	r.step(RestartWanted{Service: "web"}, "signal web/1")
}

func TestRollingRestart(t *testing.T) {
	r := begin(t, "start web/1, start web/2", Spec{Name: "web", Instances: 2, ReadyCheck: true})
	for _, name := range []string{"web/1", "web/2"} {
		r.started(name, "check "+name)
		r.ready(name)
	}
	r.step(RestartWanted{Service: "web", Rolling: true}, "start web/3")
	r.started("web/3", "check web/3")
	r.step(Checked{ID: parse("web/3"), Run: r.run("web/3"), OK: true}, "web/3: ready, signal web/1")
	r.ends("web/1", "start web/1")
	r.takeover("check web/1, web/1: adopted, web/2: adopted, web/3: adopted", func(f *Found) {
		if f.Record.ID.N == 1 {
			f.Main = Process{PID: 77, StartTime: 1}
		}
	})
	r.step(Checked{ID: parse("web/1"), Run: r.run("web/1"), OK: true}, "web/1: ready, signal web/2")
	r.ends("web/2", "start web/2")
	r.started("web/2", "check web/2")
	r.step(Checked{ID: parse("web/2"), Run: r.run("web/2"), OK: true}, "web/2: ready, signal web/3")
	r.ends("web/3", "forget web/3")
	if r.wishes["web"].Rolling {
		t.Error("the restart has not ended")
	}
}

func TestRollingRestartIsAborted(t *testing.T) {
	r := begin(t, "start web/1", Spec{Name: "web", ReadyCheck: true})
	r.started("web/1", "check web/1")
	r.ready("web/1")
	r.step(RestartWanted{Service: "web", Rolling: true}, "start web/2")
	r.started("web/2", "check web/2")
	r.exited("web/2", 1, "clear web/2, web/2: exited, web/2: rolling restart aborted")
	r.takeover("web/1: adopted, clear web/2", func(f *Found) {
		if f.Record.ID.N == 2 {
			f.Main = Process{}
		}
	})
	r.step(RestartWanted{Service: "web", Rolling: true}, "") // the earlier failure does not abort it
	r.cleared("web/2", "start web/2")
	r.state("web/1", StateReady)
}

func TestAliveCheck(t *testing.T) {
	r := begin(t, "start web/1", Spec{Name: "web", AliveFailures: 3})
	r.started("web", "alive web/1")
	check := func(ok bool, want string) {
		t.Helper()
		r.step(Checked{ID: parse("web"), Run: r.run("web"), Alive: true, OK: ok, Reason: "no answer"}, want)
	}
	check(false, "")
	check(false, "")
	check(true, "")
	check(false, "")
	check(false, "")
	check(false, "web/1: unhealthy, signal web/1")
	check(false, "")
	r.ends("web", "start web/1")
	r.started("web", "alive web/1")
	check(false, "")
	r.step(Checked{ID: parse("web"), Run: 1, Alive: true}, "") // about an earlier process
	check(false, "")
	r.takeover("alive web/1, web/1: adopted", nil)
	check(false, "web/1: unhealthy, signal web/1")
}

func TestWatchdog(t *testing.T) {
	r := begin(t, "start web/1", Spec{Name: "web", Watchdog: time.Second})
	r.up("web")
	r.now += 900 * time.Millisecond
	r.step(Notified{ID: parse("web"), Run: r.run("web"), Ping: true}, "")
	r.now += 900 * time.Millisecond
	r.step(Tick{}, "")
	r.now += 5 * time.Second
	r.takeover("web/1: adopted", nil) // nobody read the pings
	r.now += time.Second
	if at, ok := r.core.Wake(); !ok || at != r.now {
		t.Errorf("the next wake is at %s, want %s", at, r.now)
	}
	r.step(Tick{}, "web/1: unhealthy, signal web/1")
	r.ends("web", "start web/1")
	r.up("web")
	r.step(Notified{ID: parse("web"), Run: r.run("web"), Hung: true}, "web/1: unhealthy, signal web/1")
}

// TestHungTimeout checks that a program that hangs gets less time than one that is stopped.
func TestHungTimeout(t *testing.T) {
	r := begin(t, "start web/1", Spec{Name: "web", Watchdog: time.Second, StopTimeout: time.Minute, HungTimeout: time.Second})
	r.up("web")
	r.now += time.Second
	r.step(Tick{}, "web/1: unhealthy, signal web/1")
	r.now += time.Second - 1
	r.step(Tick{}, "")
	r.now++
	r.step(Tick{}, "web/1: killed, clear web/1")

	r = begin(t, "start web/1", Spec{Name: "web", Watchdog: time.Second, StopTimeout: time.Minute, HungTimeout: time.Second})
	r.up("web")
	r.step(StopWanted{Service: "web"}, "signal web/1")
	r.now += time.Minute - 1
	r.step(Tick{}, "")
}

func TestStopTimeout(t *testing.T) {
	r := begin(t, "start web/1", Spec{Name: "web", StopTimeout: time.Second})
	r.up("web")
	r.step(StopWanted{Service: "web"}, "signal web/1")
	r.now += 500 * time.Millisecond
	r.step(Notified{ID: parse("web"), Run: r.run("web"), Extend: 2 * time.Second}, "")
	r.now += time.Second
	r.takeover("signal web/1, web/1: adopted", nil)
	r.now += time.Second - 1
	r.step(Tick{}, "")
	r.now++
	r.step(Tick{}, "web/1: killed, clear web/1")
	r.takeover("clear web/1, web/1: adopted", nil)
	if at, ok := r.core.Wake(); ok {
		t.Errorf("it wakes at %s, but waits only for the death of the process", at)
	}
	r.cleared("web", "") // the tree is empty, and the exit is not yet reported
	r.step(Exited{ID: parse("web"), Run: r.run("web"), Exit: Exit{Known: true, Signal: "SIGKILL"}}, "clear web/1")
	r.cleared("web", "")
	r.state("web", StateStopped)
}

func TestConfigurationChanges(t *testing.T) {
	r := begin(t, "start a/1, start b/1, start c/1, start c/2", Spec{Name: "a"}, Spec{Name: "b"}, Spec{Name: "c", Instances: 2})
	r.up("a", "b", "c/1", "c/2")
	r.step(Configured{Specs: []Spec{
		{Name: "a", Instances: 1, StopTimeout: time.Second},
		{Name: "b", Instances: 1, Fingerprint: 1, StopTimeout: time.Second},
		{Name: "c", Instances: 1, StopTimeout: time.Second},
		{Name: "d", Instances: 1, StopTimeout: time.Second},
	}}, "signal b/1, signal c/2, start d/1")
	r.ends("b", "start b/1")
	r.ends("c/2", "forget c/2")
	r.step(Configured{}, "signal a/1, signal c/1")
	r.ends("a", "forget a/1")
	r.started("d", "signal d/1")
}

func TestChecksChangeWithoutARestart(t *testing.T) {
	r := begin(t, "start web/1", Spec{Name: "web", ReadyCheck: true})
	r.started("web", "check web/1")
	r.step(Configured{Specs: []Spec{{Name: "web", Instances: 1, AliveFailures: 1}}}, "alive web/1")
	r.state("web", StateReady)
	r.step(Configured{Specs: []Spec{{Name: "web", Instances: 1, ReadyCheck: true}}}, "")
	r.state("web", StateReady)
	r.step(Configured{Specs: []Spec{{Name: "web", Instances: 1, AliveFailures: 2}}}, "alive web/1")
}

func TestAdoption(t *testing.T) {
	main := Process{PID: 7, StartTime: 7}
	for _, c := range []struct {
		name          string
		record        Record
		restart       Policy
		main          Process
		others, fresh bool
		exit          Exit
		want          string
		state         State
	}{
		{name: "up, lives", record: Record{Phase: Up, Ready: true, Process: main}, main: main, want: "p/1: adopted", state: StateReady},
		{name: "up, dead", record: Record{Phase: Up, Process: main}, want: "clear p/1, p/1: exited", state: StateStopping},
		{name: "up, dead, leftovers", record: Record{Phase: Up, Process: main}, others: true, want: "clear p/1, p/1: exited", state: StateStopping},
		{name: "up, succeeded", record: Record{Phase: Up, Process: main}, restart: Never, exit: Exit{Known: true}, want: "clear p/1, p/1: exited, p/1: done", state: StateStopping},
		{name: "up, unknown exit", record: Record{Phase: Up, Process: main}, restart: Never, want: "clear p/1, p/1: exited, p/1: failed", state: StateStopping},
		{name: "start interrupted", record: Record{Phase: Starting}, want: "start p/1", state: StateStarting},
		{name: "start of a task interrupted", record: Record{Phase: Starting}, restart: Never, want: "p/1: failed", state: StateFailed},
		{name: "start interrupted, leftovers", record: Record{Phase: Starting}, others: true, want: "clear p/1", state: StateStopping},
		{name: "start of a task interrupted, leftovers", record: Record{Phase: Starting}, restart: Never, others: true, want: "clear p/1, p/1: failed", state: StateStopping},
		{name: "starting, lives", record: Record{Phase: Starting}, main: main, want: "p/1: adopted", state: StateReady},
		{name: "ending, lives", record: Record{Phase: Ending, Why: Cycled, StopBy: 2 * time.Hour, Process: main}, main: main, want: "signal p/1, p/1: adopted", state: StateStopping},
		{name: "ending, dead", record: Record{Phase: Ending, Why: Cycled, StopBy: 2 * time.Hour, Process: main}, want: "clear p/1", state: StateStopping},
		{name: "ending, too late", record: Record{Phase: Ending, Why: Cycled, StopBy: 1, Process: main}, main: main, want: "signal p/1, p/1: adopted, p/1: killed, clear p/1", state: StateStopping},
		{name: "killed", record: Record{Phase: Ending, Why: Cycled, StopBy: never, Process: main}, main: main, want: "clear p/1, p/1: adopted", state: StateStopping},
		{name: "clearing", record: Record{Phase: Clearing}, want: "clear p/1", state: StateStopping},
		{name: "idle", record: Record{}, want: "start p/1", state: StateStarting},
		{name: "idle, leftovers", record: Record{}, others: true, want: "clear p/1", state: StateStopping},
		{name: "done", record: Record{Outcome: Succeeded}, restart: Never, want: "", state: StateDone},
		{name: "fresh: done", record: Record{Outcome: Succeeded}, fresh: true, want: "start p/1", state: StateStarting},
		{name: "fresh: failed", record: Record{Outcome: Failed, Failures: 3}, fresh: true, want: "start p/1", state: StateStarting},
		{name: "fresh: a task was running", record: Record{Phase: Up, Process: main}, restart: Never, fresh: true, want: "start p/1", state: StateStarting},
		{name: "fresh: a task was being started", record: Record{Phase: Starting}, restart: Never, fresh: true, want: "start p/1", state: StateStarting},
		{name: "fresh: lives", record: Record{Phase: Up, Ready: true, Process: main}, main: main, fresh: true, want: "p/1: adopted", state: StateReady},
		{name: "fresh: backoff", record: Record{Failures: 5, NotBefore: 2 * time.Hour}, fresh: true, want: "start p/1", state: StateStarting},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, Spec{Name: "p", Restart: c.restart})
			c.record.ID, c.record.Run = parse("p"), 5
			r.step(Lead{Specs: r.specs, Found: []Found{{Record: c.record, Main: c.main, Others: c.others, Exit: c.exit}}, Fresh: c.fresh}, c.want)
			r.state("p", c.state)
		})
	}
}

func TestAdoptsAnInstanceThatIsNotConfigured(t *testing.T) {
	r := newRig(t, Spec{Name: "other", Needs: []string{"p"}})
	main := Process{PID: 7, StartTime: 7}
	r.step(Lead{Specs: r.specs, Found: []Found{{Record: Record{ID: parse("p"), Run: 3, Phase: Up, Ready: true, Process: main, PingBy: 1}, Main: main}}},
		"p/1: adopted, signal p/1")
	r.records[parse("p")] = Record{ID: parse("p"), Run: 3}
	r.ends("p", "forget p/1")
	r.state("other", StateWaiting)
}

func TestFreshForgetsWishes(t *testing.T) {
	r := begin(t, "start p/1", Spec{Name: "p"})
	r.up("p")
	r.step(StopWanted{Service: "p"}, "signal p/1")
	r.ends("p", "")
	r.lead(Lead{Fresh: true}, "start p/1", nil)
	if w := r.wishes["p"]; !w.Empty() {
		t.Errorf("a wish is left: %+v", w)
	}
}

func TestMainProcessMoves(t *testing.T) {
	r := begin(t, "start p/1", Spec{Name: "p", ReadyCheck: true})
	r.started("p", "check p/1")
	moved := Process{PID: 9, StartTime: 9}
	r.step(Notified{ID: parse("p"), Run: r.run("p"), Main: moved, Ready: true}, "p/1: ready")
	if got := r.records[parse("p")].Process; got != moved {
		t.Errorf("the main process is %v, want %v", got, moved)
	}
}

func TestReadyBeforeStarted(t *testing.T) {
	r := begin(t, "start p/1", Spec{Name: "p", ReadyCheck: true})
	r.step(Notified{ID: parse("p"), Run: r.run("p"), Ready: true}, "")
	r.takeover("p/1: ready, p/1: adopted", func(f *Found) { f.Main = Process{PID: 9, StartTime: 9} })
	r.state("p", StateReady)
}

func TestIgnoresEventsOfOtherRuns(t *testing.T) {
	r := begin(t, "start p/1", Spec{Name: "p"})
	r.up("p")
	id, other := parse("p"), r.run("p")+1
	for _, ev := range []Event{Started{ID: id, Run: other}, StartFailed{ID: id, Run: other}, Exited{ID: id, Run: other}, Cleared{ID: id, Run: other},
		Cleared{ID: id, Run: r.run("p")}, Checked{ID: id, Run: other, Alive: true}, Notified{ID: id, Run: other, Hung: true}, Exited{ID: parse("q"), Run: 1}} {
		r.step(ev, "")
	}
	r.state("p", StateReady)
}

func TestChangedProgramRunsAgain(t *testing.T) {
	r := begin(t, "start p/1", Spec{Name: "p", Restart: Never})
	r.up("p")
	r.exited("p", 1, "clear p/1, p/1: exited, p/1: failed")
	r.cleared("p", "")
	r.step(Configured{Specs: []Spec{{Name: "p", Instances: 1, Restart: Never}}}, "")
	r.step(Configured{Specs: []Spec{{Name: "p", Instances: 1, Restart: Never, Fingerprint: 1}}}, "start p/1")
	r.up("p")
	r.succeeds("p")
	r.step(Configured{Specs: []Spec{{Name: "p", Instances: 1, Restart: OnFailure, Fingerprint: 1}}}, "")
	r.step(Configured{Specs: []Spec{{Name: "p", Instances: 1, Fingerprint: 1}}}, "start p/1")
}

// A second Clear that is under way when the first is answered would kill the next process.
func TestClearsOnceAtATime(t *testing.T) {
	r := begin(t, "start p/1", Spec{Name: "p", StopTimeout: time.Second})
	r.up("p")
	r.step(RestartWanted{Service: "p"}, "signal p/1")
	r.now += time.Second
	r.step(Tick{}, "p/1: killed, clear p/1")
	r.exited("p", 0, "")
	r.cleared("p", "start p/1")
}

// An event that changes nothing can come between the end of a delay and its Tick.
func TestWakesAfterADelay(t *testing.T) {
	r := begin(t, "start a/1, start b/1", Spec{Name: "a"}, Spec{Name: "b", AliveFailures: 1})
	r.started("b", "alive b/1")
	r.up("a")
	r.crashes("a") // the first delay is none
	r.up("a")
	r.exited("a", 1, "clear a/1, a/1: exited")
	r.cleared("a", "")
	r.now = r.records[parse("a")].NotBefore + 1
	r.step(Checked{ID: parse("b"), Run: r.run("b"), Alive: true, OK: true}, "")
	if at, ok := r.core.Wake(); !ok || at > r.now {
		t.Fatalf("the next wake is at %s, %t", at, ok)
	}
	r.step(Tick{}, "start a/1")
}

func TestChangedWhileItEnds(t *testing.T) {
	r := begin(t, "start p/1", Spec{Name: "p", Limit: 1, AliveFailures: 1})
	r.started("p", "alive p/1")
	r.step(Checked{ID: parse("p"), Run: r.run("p"), Alive: true}, "p/1: unhealthy, signal p/1")
	r.step(Configured{Specs: []Spec{{Name: "p", Instances: 1, Limit: 1, Fingerprint: 1, StopTimeout: time.Second}}}, "")
	r.exited("p", 1, "clear p/1, p/1: failed")
	r.cleared("p", "start p/1")
}

// A process that runs on only for those that depend on it is not held to a watchdog that it does
// not know.
func TestWatchdogOfAnotherConfiguration(t *testing.T) {
	r := begin(t, "start db/1, start db/2", Spec{Name: "db", Instances: 2, Watchdog: time.Minute}, Spec{Name: "web", Needs: []string{"db"}})
	r.up("db/1")
	r.started("db/2", "start web/1")
	r.up("web")
	r.step(StopWanted{Service: "web"}, "signal web/1")
	web := Spec{Name: "web", Instances: 1, Needs: []string{"db"}, StopTimeout: time.Hour}
	r.step(Configured{Specs: []Spec{{Name: "db", Instances: 1, Fingerprint: 1, StopTimeout: time.Hour}, web}}, "signal db/1")
	r.step(Notified{ID: parse("db/2"), Run: r.run("db/2"), Ping: true}, "")
	r.now += 2 * time.Second
	r.step(Tick{}, "")
	r.ends("web", "signal db/2")
}

// rolling returns a rig in which a rolling restart of web has replaced web/1, and web/1 is not yet
// ready.
func rolling(t *testing.T, limit int) *rig {
	t.Helper()
	r := begin(t, "start web/1, start web/2", Spec{Name: "web", Instances: 2, ReadyCheck: true, Limit: limit, RollTimeout: time.Minute})
	for _, name := range []string{"web/1", "web/2"} {
		r.started(name, "check "+name)
		r.ready(name)
	}
	r.step(RestartWanted{Service: "web", Rolling: true}, "start web/3")
	r.started("web/3", "check web/3")
	r.step(Checked{ID: parse("web/3"), Run: r.run("web/3"), OK: true}, "web/3: ready, signal web/1")
	r.ends("web/1", "start web/1")
	r.started("web/1", "check web/1")
	return r
}

func TestRestartOfOneInstanceDuringARollingRestart(t *testing.T) {
	r := rolling(t, 0)
	r.step(RestartWanted{Service: "web", Instance: 2}, "signal web/2")
	r.ends("web/2", "start web/2")
	r.started("web/2", "check web/2")
	r.ready("web/1")
	if !r.wishes["web"].Rolling {
		t.Fatal("the rolling restart has ended before all instances were ready")
	}
	r.step(Checked{ID: parse("web/2"), Run: r.run("web/2"), OK: true}, "web/2: ready, signal web/3")
	r.ends("web/3", "forget web/3")
	if w := r.wishes["web"]; w.Rolling || w.RollFailed != "" {
		t.Errorf("after the end, the wish is %+v", w)
	}
}

func TestRollingRestartEndsWhenAnInstanceIsNotReadyInTime(t *testing.T) {
	r := rolling(t, 0)
	r.step(Checked{ID: parse("web/1"), Run: r.run("web/1"), Reason: "connection refused"}, "")
	r.now += 30 * time.Second
	r.takeover("check web/1, web/1: adopted, web/2: adopted, web/3: adopted", func(f *Found) {
		if f.Record.ID.N == 1 {
			f.Main = r.records[parse("web/1")].Process
		}
	})
	at, ok := r.core.Wake()
	if want := r.wishes["web"].RollBy; !ok || at != want {
		t.Fatalf("the next wake is at %s, want %s", at, want)
	}
	// The stop timeout of the instance that was replaced does not count.
	if left := at - r.now; left != 40*time.Second {
		t.Errorf("%s are left, want 40s", left)
	}
	r.now = at
	r.step(Tick{}, "web/1: rolling restart aborted, signal web/3")
	if got, want := r.wishes["web"].RollFailed, "web/1 did not become ready in 1m0s: connection refused"; got != want {
		t.Errorf("the reason is %q, want %q", got, want)
	}
	r.ends("web/3", "forget web/3")
	r.state("web/2", StateReady)
	r.step(RestartWanted{Service: "web", Rolling: true}, "start web/3")
	if w := r.wishes["web"]; !w.Rolling || w.RollFailed != "" {
		t.Errorf("a new rolling restart has the wish %+v", w)
	}
}

func TestRollingRestartEndsWhenAnInstanceFails(t *testing.T) {
	r := rolling(t, 1)
	r.exited("web/1", 3, "clear web/1, web/1: exited, web/1: failed, web/1: rolling restart aborted, signal web/3")
	r.cleared("web/1", "")
	r.state("web/2", StateReady)
	if got, want := r.wishes["web"].RollFailed, "web/1 has failed: 1 failure in a short time; the last one: exit status 3"; got != want {
		t.Errorf("the reason is %q, want %q", got, want)
	}
}

func TestRollingRestartEndsWhenADependencyIsMissing(t *testing.T) {
	r := begin(t, "start db/1", Spec{Name: "db"}, Spec{Name: "web", Needs: []string{"db"}, RollTimeout: time.Minute})
	r.started("db", "start web/1")
	r.up("web")
	r.step(StopWanted{Service: "db"}, "signal db/1")
	r.ends("db", "")
	r.step(RestartWanted{Service: "web", Rolling: true}, "")
	r.now += time.Minute
	r.step(Tick{}, "web/2: rolling restart aborted, forget web/2")
	if got, want := r.wishes["web"].RollFailed, "web/2 did not become ready in 1m0s: needs db/1, which does not run"; got != want {
		t.Errorf("the reason is %q, want %q", got, want)
	}
	r.state("web", StateReady)
}

// Services that are removed together stop in their order, also if the leader dies meanwhile.
func TestRemovedServicesStopInOrder(t *testing.T) {
	specs := []Spec{{Name: "a"}, {Name: "m", Needs: []string{"a"}}, {Name: "z", After: []string{"m"}}}
	r := begin(t, "start a/1", specs...)
	r.started("a", "start m/1")
	r.started("m", "start z/1")
	r.up("z")
	r.specs = nil
	r.step(Configured{}, "signal z/1")
	r.takeover("a/1: adopted, m/1: adopted, signal z/1, z/1: adopted", func(f *Found) {
		k := slices.IndexFunc(specs, func(s Spec) bool { return s.Name == f.Record.ID.Service })
		f.Spec = &specs[k]
	})
	r.exited("z", 0, "clear z/1")
	r.cleared("z", "signal m/1, forget z/1")
	r.ends("m", "signal a/1, forget m/1")
	r.ends("a", "forget a/1")
}

func TestProgramStopsItself(t *testing.T) {
	r := begin(t, "start db/1", Spec{Name: "db", StopTimeout: time.Second, AliveFailures: 1}, Spec{Name: "web", Needs: []string{"db"}})
	r.started("db", "alive db/1, start web/1")
	r.up("web")
	r.step(Notified{ID: parse("db"), Run: r.run("db"), Stopping: true}, "")
	r.state("db", StateStopping)
	r.step(Checked{ID: parse("db"), Run: r.run("db"), Alive: true}, "") // it is not unhealthy, it stops
	r.step(RestartWanted{Service: "web"}, "signal web/1")
	r.takeover("db/1: adopted, signal web/1, web/1: adopted", nil) // and nobody signals db
	r.ends("web", "")
	r.state("web", StateWaiting)
	r.exited("db", 0, "clear db/1, db/1: exited")
	r.cleared("db", "start db/1")
	r.started("db", "alive db/1, start web/1")
	r.step(Notified{ID: parse("db"), Run: r.run("db"), Stopping: true, Extend: 5 * time.Second}, "")
	r.now += 5*time.Second - 1
	r.step(Tick{}, "")
	r.now++
	r.step(Tick{}, "db/1: killed, clear db/1")
	r.step(Exited{ID: parse("db"), Run: r.run("db"), Exit: Exit{Known: true, Signal: "SIGKILL"}}, "db/1: exited")
}

func TestProgramReloads(t *testing.T) {
	r := begin(t, "start db/1", Spec{Name: "db", AliveFailures: 2, ReadyCheck: true}, Spec{Name: "web", Needs: []string{"db"}})
	r.started("db", "check db/1")
	r.step(Notified{ID: parse("db"), Run: r.run("db"), Reloading: true}, "") // it is not ready anyway
	r.step(Checked{ID: parse("db"), Run: r.run("db"), OK: true}, "alive db/1, db/1: ready, start web/1")
	r.up("web")
	r.step(Notified{ID: parse("db"), Run: r.run("db"), Reloading: true}, "")
	r.state("db", StateRunning)
	r.step(RestartWanted{Service: "web"}, "signal web/1")
	r.ends("web", "")
	r.state("web", StateWaiting)
	r.takeover("alive db/1, db/1: adopted", nil)
	r.state("db", StateRunning)
	r.step(Notified{ID: parse("db"), Run: r.run("db"), Ready: true}, "db/1: ready, start web/1")
	r.state("db", StateReady)
	r.step(Notified{ID: parse("db"), Run: r.run("db"), Reloading: true}, "")
	for _, want := range []string{"", "db/1: unhealthy, signal db/1"} { // the alive check goes on
		r.step(Checked{ID: parse("db"), Run: r.run("db"), Alive: true, Reason: "no answer"}, want)
	}
}
