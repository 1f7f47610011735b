package core

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/rules/entry"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

// bench drives one core by hand.
type bench struct {
	t      *testing.T
	c      *Core
	now    time.Duration
	claims bool // the test itself answers each Claim
}

const (
	interval = 100 * time.Millisecond
	timeout  = time.Second
)

func id(port uint16) roster.ID {
	return roster.ID{Address: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port), PID: int(port), StartTime: 1}
}

func member(port uint16, slot int, s roster.State) roster.Member {
	return roster.Member{ID: id(port), Slot: slot, State: s}
}

func pos(epoch, index uint64) entry.Position { return entry.Position{Epoch: epoch, Index: index} }

func newBench(t *testing.T, port uint16, slot int) *bench {
	return &bench{t: t, now: time.Hour, c: New(Config{
		Self: member(port, slot, roster.Starting), Client: "127.0.0.1:2379",
		Followers: 2, MinSync: 1, HeartbeatInterval: interval, HeartbeatTimeout: timeout,
		Settle: time.Nanosecond, // ends with the next event
		Rand:   rand.New(rand.NewPCG(1, 1)),
	})}
}

// do posts an event and returns the effects without heartbeats and reports.
func (b *bench) do(ev Event) []Effect {
	b.t.Helper()
	return slices.DeleteFunc(b.all(ev), func(e Effect) bool {
		switch e.(type) {
		case Beat, Report:
			return true
		}
		return false
	})
}

// all posts an event and returns all effects. It answers a Claim at once, unless the test does
// that.
func (b *bench) all(ev Event) []Effect {
	b.now += time.Microsecond
	es := b.c.Step(b.now, ev)
	i := slices.IndexFunc(es, func(e Effect) bool { _, ok := e.(Claim); return ok })
	if i < 0 || b.claims {
		return es
	}
	return append(slices.Delete(es, i, i+1), b.all(Claimed{})...)
}

// pass advances time in small steps, as for a member that is on time. It returns the effects
// without heartbeats and reports.
func (b *bench) pass(d time.Duration) []Effect {
	b.t.Helper()
	var got []Effect
	for end := b.now + d; b.now < end; {
		b.now = min(end, b.now+interval/2) - time.Microsecond
		got = append(got, b.do(Tick{})...)
	}
	return got
}

// expect compares effects by their names and, where given, their details.
func (b *bench) expect(got []Effect, want ...string) {
	b.t.Helper()
	ok := len(got) == len(want)
	told := make([]string, len(got))
	for i, e := range got {
		told[i] = Describe(e)
		ok = ok && begins(told[i], want[i])
	}
	if !ok {
		b.t.Fatalf("effects:\n  %s\nwant:\n  %s", strings.Join(told, "\n  "), strings.Join(want, "\n  "))
	}
}

// begins reports whether a text begins with these whole words.
func begins(text, words string) bool {
	rest, ok := strings.CutPrefix(text, words)
	return ok && (rest == "" || rest[0] == ' ' || rest[0] == ':')
}

// kinds returns the kinds of the reports among the effects.
func kinds(es []Effect) []Kind {
	var ks []Kind
	for _, e := range es {
		if r, ok := e.(Report); ok {
			ks = append(ks, r.Kind)
		}
	}
	return ks
}

// find returns the first effect of a type.
func find[E Effect](t *testing.T, es []Effect) E {
	t.Helper()
	for _, e := range es {
		if x, ok := e.(E); ok {
			return x
		}
	}
	var none E
	t.Fatalf("no %T among %v", none, es)
	return none
}

// ros returns a roster with a leader on port 7000 in slot 1. Its followers on the given ports are
// in sync, in slots from 2 on.
func ros(epoch, version uint64, ports ...uint16) *roster.Roster {
	r := &roster.Roster{Epoch: epoch, Version: version, Leader: id(7000).Address, Followers: 2}
	r.Members = append(r.Members, member(7000, 1, roster.Serving))
	for i, p := range ports {
		r.Members = append(r.Members, member(p, i+2, roster.InSync))
	}
	r.Sort()
	return r
}

// follower boots a core on the port. It follows 7000 and has heard from it.
func follower(t *testing.T, port uint16, r *roster.Roster) *bench {
	m, _ := r.Find(id(port).Address)
	b := newBench(t, port, m.Slot)
	b.expect(b.do(Boot{Roster: r, HasCopy: true, Last: pos(r.Epoch, 10)}),
		"Watch 127.0.0.1:7000 (pid 7000)", "Follow 127.0.0.1:7000 (pid 7000)")
	b.do(Heard{Roster: r, Commit: 5})
	return b
}

// leader boots a core that leads epoch 1 with log 1/1, and has asked for two followers in slots 2
// and 3.
func leader(t *testing.T) *bench {
	b := newBench(t, 7000, 0)
	b.expect(b.do(Boot{Lead: true}), "TryLock")
	b.expect(b.do(LockTaken{}), "Unfollow", "TakeSlot 1")
	b.expect(b.do(Adopted{Slot: 1}), "BeginEpoch 1")
	b.expect(b.do(Appended{Last: pos(1, 1)}), "Sync")
	b.expect(b.do(Synced{Last: pos(1, 1)}), "WriteSuccession 1")
	b.expect(b.do(SuccessionWritten{}), "Commit 1", "Lead 1", "Publish", "PublishDeaths 0", "Spawn 2", "Spawn 3")
	return b
}

// staffed returns a leader with followers in sync on the ports, in slots from 2 on.
func staffed(t *testing.T, ports ...uint16) *bench {
	b := leader(t)
	for i, p := range ports {
		b.do(Spawned{Member: member(p, i+2, roster.Starting)})
		b.do(Joined{Member: member(p, i+2, roster.Starting), Last: pos(1, 1), CanResume: true})
	}
	for _, p := range ports {
		if m, _ := b.c.Roster().Find(id(p).Address); m.State != roster.InSync {
			t.Fatalf("%s is %s, want in sync", m.ID, m.State)
		}
	}
	return b
}

// notBusy fails if the core asks to be woken at once.
func (b *bench) notBusy() {
	b.t.Helper()
	if w := b.c.Wake(); w <= b.now {
		b.t.Fatalf("the core asks to be woken at %s, but it is already %s", w, b.now)
	}
}

func (b *bench) state(port uint16) string {
	m, ok := b.c.Roster().Find(id(port).Address)
	if !ok {
		return "unknown"
	}
	return fmt.Sprint(m.State)
}
