package statetest

import (
	"net/netip"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/worker/state"
)

// Loop collects events and feeds no core.
type Loop struct {
	mu     sync.Mutex
	events []core.Event
}

// Post collects an event.
func (l *Loop) Post(ev core.Event) { l.Put(ev) }

// Put collects an event.
func (l *Loop) Put(ev core.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, ev)
}

// Feed does nothing.
func (l *Loop) Feed() {}

// Do calls f at once.
func (l *Loop) Do(f func()) { f() }

// Take returns the events since the last call.
func (l *Loop) Take() []core.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.events
	l.events = nil
	return out
}

// New returns the state.Shared of a member on port 7001 of loopback, with its own data
// directory. The process ends with the test. If it ends earlier, the test fails unless mayEnd
// is set.
func New(t testing.TB, cfg *config.Config, mayEnd bool) (*state.Shared, *Loop) {
	t.Helper()
	dir, err := datadir.Open(t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.DataDir == "" {
		cfg.DataDir = dir.Path()
	}
	over := false
	fate := state.NewFate(func(code core.ExitCode, reason string) {
		if !over && !mayEnd {
			t.Errorf("the process ends with code %d: %s", code, reason)
		}
	})
	t.Cleanup(func() { over = true; fate.End(core.ExitDone, "the test is over") })
	loop := &Loop{}
	return &state.Shared{
		Self:  state.Self{Process: proc.Self(), Address: netip.MustParseAddrPort("127.0.0.1:7001"), BootID: "boot", Version: "test"},
		State: state.New(), Fate: fate, Loop: loop, Settings: state.NewSettings(cfg), Dir: dir,
		Log: hclog.NewNullLogger(), Tell: func(string, string) {},
	}, loop
}
