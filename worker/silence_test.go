package worker

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/proc"
	"github.com/dynast-io/dynast/shared/roster"
)

func TestASilentProcessThatWorksIsNotTakenForHung(t *testing.T) {
	address := func(port uint16) roster.Address { return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port) }
	member := func(port uint16) roster.Member {
		return roster.Member{ID: roster.ID{Address: address(port), PID: int(port), StartTime: 1}}
	}
	me, leader, other := member(1), member(2), member(3)
	cfg := &config.Config{}
	cfg.Heartbeat.Timeout = time.Second
	const interval = 250 * time.Millisecond
	for name, c := range map[string]struct {
		leading bool
		works   map[int]time.Duration // of each interval, by pid
		waits   int                   // the process that waits for a processor, and does not get any
		hears   bool
		want    map[core.Event]int // within eight seconds
	}{
		"a leader that hangs":               {false, map[int]time.Duration{2: 10 * time.Millisecond, 3: time.Second}, 0, false, map[core.Event]int{}},
		"a leader that works":               {false, map[int]time.Duration{2: interval / 2}, 0, false, map[core.Event]int{core.Deaf{}: 18}},
		"a leader that is heard":            {false, map[int]time.Duration{2: interval}, 0, true, map[core.Event]int{}},
		"one follower works, another hangs": {true, map[int]time.Duration{2: 0, 3: interval}, 0, false, map[core.Event]int{core.Toils{ID: other.ID}: 18}},
		"a follower is starved":             {true, nil, 3, false, map[core.Event]int{core.Toils{ID: other.ID}: 19}},
	} {
		t.Run(name, func(t *testing.T) {
			m := &Member{mail: newMailbox(), cfg: cfg, address: me.Address}
			r := &roster.Roster{Epoch: 1, Leader: leader.Address, Members: []roster.Member{me, leader, other}}
			if c.leading {
				r.Leader = me.Address
			}
			m.published.Store(&published{roster: r})
			s := newSilence(m)
			worked := map[int]time.Duration{}
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
			got := map[core.Event]int{}
			for _, posted := range m.mail.queue {
				got[posted.event]++
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("told %v, want %v", got, c.want)
			}
		})
	}
}
