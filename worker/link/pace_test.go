package link

import (
	"net/netip"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/worker/state/statetest"
)

// pacing returns the pace of a leader with one session for each state.
func pacing(t *testing.T, minSync int, states ...roster.State) (*pace, []*session) {
	t.Helper()
	cfg := &config.Config{}
	cfg.Replication.MinSync = minSync
	sh, _ := statetest.New(t, cfg, false)
	d := newDownstream(Config{Shared: sh}, nil)
	d.pace.others.Stop() // the test fires it
	d.pace.commit.Stop()
	r := &roster.Roster{}
	var sessions []*session
	for i, st := range states {
		id := roster.ID{Address: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(7401+i)), PID: i + 1}
		r.Members = append(r.Members, roster.Member{ID: id, State: st})
		s := &session{id: id, d: d, wake: make(chan struct{}, 1)}
		d.sessions[id] = s
		sessions = append(sessions, s)
	}
	sh.Publish(r)
	return d.pace, sessions
}

// woken reports which sessions were woken since the last call.
func woken(sessions []*session) (out []bool) {
	for _, s := range sessions {
		select {
		case <-s.wake:
			out = append(out, true)
		default:
			out = append(out, false)
		}
	}
	return out
}

func TestWriteWakesOnlyNeededFollowers(t *testing.T) {
	const in, starting = roster.InSync, roster.Starting
	for name, c := range map[string]struct {
		minSync int
		states  []roster.State
		acked   []uint64
		want    []bool
	}{
		"the first of equals":      {1, []roster.State{in, in}, []uint64{5, 5}, []bool{true, false}},
		"the follower ahead":       {1, []roster.State{in, in}, []uint64{5, 6}, []bool{false, true}},
		"as many as needed":        {2, []roster.State{in, in, in}, []uint64{5, 7, 6}, []bool{false, true, true}},
		"all, if there are fewer":  {2, []roster.State{in}, []uint64{5}, []bool{true}},
		"also one that catches up": {1, []roster.State{in, starting, in}, []uint64{5, 0, 9}, []bool{false, true, true}},
		"none is needed":           {0, []roster.State{in, in}, []uint64{5, 5}, []bool{false, false}},
	} {
		t.Run(name, func(t *testing.T) {
			p, sessions := pacing(t, c.minSync, c.states...)
			for i, n := range c.acked {
				sessions[i].acked.Store(n)
			}
			p.appended(1)
			got := woken(sessions)
			later := false
			for i := range got {
				if got[i] != c.want[i] {
					t.Errorf("woken %v, want %v", got, c.want)
					break
				}
				later = later || !c.want[i]
			}
			if p.othersArmed.Load() != later {
				t.Errorf("the timer for the others is armed: %v, want %v", p.othersArmed.Load(), later)
			}
			p.others.Stop()
			p.wakeOthers()
			for i, w := range woken(sessions) {
				if !w {
					t.Errorf("session %d is never woken", i)
				}
			}
		})
	}
}

// If a follower on which a write depends has frozen, the write is delayed by othersDelay and no
// longer.
func TestOtherFollowersAreWokenLater(t *testing.T) {
	p, sessions := pacing(t, 1, roster.InSync, roster.InSync)
	p.appended(1)
	select {
	case <-sessions[1].wake:
	case <-time.After(time.Minute):
		t.Error("the other follower was never woken")
	}
	sessions[1].acked.Store(1)
	woken(sessions)
	if p.appended(1); woken(sessions)[0] {
		t.Error("the frozen follower keeps its place")
	}
	p.others.Stop()
}

// Large entries do not wait until they have left the leader's memory.
func TestManyBytesDoNotWait(t *testing.T) {
	p, sessions := pacing(t, 1, roster.InSync, roster.InSync)
	p.appended(othersBytes - 1)
	p.others.Stop()
	if woken(sessions)[1] {
		t.Error("the other follower was woken early")
	}
	if p.appended(1); !woken(sessions)[1] {
		t.Error("the other follower was not woken")
	}
	if p.appended(othersBytes - 1); woken(sessions)[1] {
		t.Error("the bytes of sent entries are counted again")
	}
	p.others.Stop()
}

// In a hand-over, the leader exits when its successor has all entries. Clients are not served
// until then.
func TestSuccessorIsWokenAtOnce(t *testing.T) {
	p, sessions := pacing(t, 1, roster.InSync, roster.InSync, roster.InSync)
	r := p.d.Roster().Clone()
	r.Successor = sessions[2].id.Address
	p.d.Publish(r)
	p.appended(1)
	p.others.Stop()
	if got := woken(sessions); !got[0] || got[1] || !got[2] {
		t.Errorf("woken %v, want the first and the successor", got)
	}
	if !p.othersArmed.Load() {
		t.Error("the second is never woken")
	}
}

func TestCommitIndexIsSentOnce(t *testing.T) {
	p, sessions := pacing(t, 1, roster.InSync)
	s := sessions[0]
	p.d.Committed.Store(9)
	p.committed()
	p.commit.Stop()
	p.tellCommit()
	if !woken(sessions)[0] || !s.beat {
		t.Error("a commit index is not sent if no entries follow it")
	}
	s.beat = false
	s.sentCommit.Store(9)
	if p.tellCommit(); woken(sessions)[0] || s.beat {
		t.Error("the commit index is sent again")
	}
	s.sentCommit.Store(8)
	s.sentAt.Store(time.Now().Add(time.Hour).UnixNano()) // entries went out just now
	if p.tellCommit(); woken(sessions)[0] || !p.commitArmed.Load() {
		t.Error("while entries are being sent, the commit index must go with the next ones, and the timer must be armed again")
	}
	p.commit.Stop()
}
