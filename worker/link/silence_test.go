package link

import (
	"net/netip"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/worker/state/statetest"
)

func TestBusySilentProcessIsNotHung(t *testing.T) {
	address := func(port uint16) roster.Address { return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port) }
	member := func(port uint16) roster.Member {
		return roster.Member{ID: roster.ID{Address: address(port), PID: int(port), StartTime: 1}}
	}
	me, leader, other := member(1), member(2), member(3)
	cfg := &config.Config{}
	cfg.Heartbeat.Timeout = time.Second
	const interval = 250 * time.Millisecond
	type works = map[int]time.Duration // of each interval, by pid
	type told = map[core.Event]int     // within eight seconds
	for name, c := range map[string]struct {
		leading bool
		works   works
		waits   int  // the process that waits for a processor, and gets none
		behind  bool // this process itself
		hears   bool
		want    told
	}{
		"a leader that hangs":               {works: works{2: 10 * time.Millisecond, 3: time.Second}, want: told{}},
		"a leader that works":               {works: works{2: interval / 2}, want: told{core.SilenceExcused{}: 18}},
		"a leader that is heard":            {works: works{2: interval}, hears: true, want: told{}},
		"one follower works, another hangs": {leading: true, works: works{3: interval}, want: told{core.Working{ID: other.ID}: 18}},
		"a follower is starved":             {leading: true, waits: 3, want: told{core.Working{ID: other.ID}: 19}},
		"this process is behind":            {leading: true, behind: true, want: told{core.Working{ID: leader.ID}: 19, core.Working{ID: other.ID}: 19}},
	} {
		t.Run(name, func(t *testing.T) {
			sh, loop := statetest.New(t, cfg, false)
			sh.Self.Address = me.Address
			r := &roster.Roster{Epoch: 1, Leader: leader.Address, Members: []roster.Member{me, leader, other}}
			if c.leading {
				r.Leader = me.Address
			}
			sh.Publish(r)
			s, worked := newSilence(sh), works{}
			s.behind = func() bool { return c.behind }
			s.work = func(pid int) (proc.Effort, error) {
				return proc.Effort{Time: worked[pid], Runnable: pid == c.waits}, nil
			}
			now := time.Now()
			for range 8 * time.Second / interval {
				s.look(now, c.leading)
				now = now.Add(interval)
				for pid, d := range c.works {
					worked[pid] += d
				}
				if c.hears {
					s.mu.Lock()
					s.heard[leader.ID] = now
					s.mu.Unlock()
				}
			}
			got := told{}
			for _, ev := range loop.Take() {
				got[ev]++
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("posted %v, want %v", got, c.want)
			}
		})
	}
}

// Goroutines that wait for a processor are noticed.
func TestBacklog(t *testing.T) {
	b := &backlog{}
	b.grew()
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 64 * runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for !stop.Load() {
			}
		})
	}
	defer func() { stop.Store(true); wg.Wait() }()
	for deadline := time.Now().Add(time.Minute); !b.grew(); {
		if time.Now().After(deadline) {
			t.Fatal("64 goroutines compete for each processor, and none waited")
		}
		<-time.After(10 * time.Millisecond) // the pace of asking
	}
}
