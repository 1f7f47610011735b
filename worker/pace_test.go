package worker

import (
	"net/netip"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/roster"
)

// pacing is a leader with a session for each follower that a test wants.
func pacing(t *testing.T, minSync int, states ...roster.State) (*pace, []*session) {
	t.Helper()
	m := &Member{}
	cfg := &config.Config{}
	cfg.Replication.MinSync = minSync
	m.live.Store(cfg)
	d := newDownstream(m)
	d.pace.spare.Stop() // the test fires it
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
	m.published.Store(&published{roster: r})
	return d.pace, sessions
}

// woken tells who was woken since the last call.
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

func TestOnlyThoseAreWokenOnWhomAWriteDepends(t *testing.T) {
	const in, starting = roster.InSync, roster.Starting
	for name, c := range map[string]struct {
		minSync int
		states  []roster.State
		acked   []uint64
		want    []bool
	}{
		"the first of equals":        {1, []roster.State{in, in}, []uint64{5, 5}, []bool{true, false}},
		"who is ahead":               {1, []roster.State{in, in}, []uint64{5, 6}, []bool{false, true}},
		"as many as needed":          {2, []roster.State{in, in, in}, []uint64{5, 7, 6}, []bool{false, true, true}},
		"all, where there are fewer": {2, []roster.State{in}, []uint64{5}, []bool{true}},
		"who has to catch up, too":   {1, []roster.State{in, starting, in}, []uint64{5, 0, 9}, []bool{false, true, true}},
		"nobody is needed":           {0, []roster.State{in, in}, []uint64{5, 5}, []bool{false, false}},
	} {
		t.Run(name, func(t *testing.T) {
			p, sessions := pacing(t, c.minSync, c.states...)
			for i, n := range c.acked {
				sessions[i].acked.Store(n)
			}
			p.appended()
			got := woken(sessions)
			spare := false
			for i := range got {
				if got[i] != c.want[i] {
					t.Errorf("woken %v, want %v", got, c.want)
					break
				}
				spare = spare || !c.want[i]
			}
			if p.spareArmed.Load() != spare {
				t.Errorf("the others are to follow: %v, want %v", p.spareArmed.Load(), spare)
			}
			p.spare.Stop()
			p.wakeSpare()
			for i, w := range woken(sessions) {
				if !w {
					t.Errorf("session %d is never woken", i)
				}
			}
		})
	}
}

// A follower on which a write depends and that has frozen holds it up for as
// long as the others wait, and no longer.
func TestTheOthersAreWokenALittleLater(t *testing.T) {
	p, sessions := pacing(t, 1, roster.InSync, roster.InSync)
	p.appended()
	select {
	case <-sessions[1].wake:
	case <-time.After(time.Minute):
		t.Error("it was never woken")
	}
	sessions[1].acked.Store(1)
	woken(sessions)
	if p.appended(); woken(sessions)[0] {
		t.Error("the frozen one keeps its place")
	}
	p.spare.Stop()
}

func TestACommitIndexIsToldOnce(t *testing.T) {
	p, sessions := pacing(t, 1, roster.InSync)
	s := sessions[0]
	p.d.m.committed.Store(9)
	p.committed()
	p.commit.Stop()
	p.tellCommit()
	if !woken(sessions)[0] || !s.beat {
		t.Error("a commit index without entries after it is not told")
	}
	s.beat = false
	s.toldCommit.Store(9)
	if p.tellCommit(); woken(sessions)[0] || s.beat {
		t.Error("it is told again")
	}
	s.toldCommit.Store(8)
	s.toldAt.Store(time.Now().Add(time.Hour).UnixNano()) // entries went out just now
	if p.tellCommit(); woken(sessions)[0] || !p.commitArmed.Load() {
		t.Error("in a stream of entries it rides with the next ones, which is to be looked at again")
	}
	p.commit.Stop()
}
