package core

import (
	"strings"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/rules/roster"
)

// upgrading returns a leader with two followers that was asked for another build, and has started
// one follower of it in slot 4.
func upgrading(t *testing.T) *bench {
	t.Helper()
	b := staffed(t, 7001, 7002)
	b.expect(b.do(UpgradeRequested{Build: "/new", Patience: time.Minute, Ref: 1}), "Spawn 4 /new")
	return b
}

// comes lets the follower of a slot start and get in sync.
func (b *bench) comes(port uint16, slot int) []Effect {
	m := member(port, slot, roster.Starting)
	m.Version = "new"
	es := b.do(Spawned{Member: m, Build: "/new"})
	es = append(es, b.do(Joined{Member: m, Last: b.c.appended, CanResume: true})...)
	return append(es, b.do(Progress{ID: id(port), Index: b.c.appended.Index})...)
}

func spawns(es []Effect) (out []Spawn) {
	for _, e := range es {
		if s, ok := e.(Spawn); ok {
			out = append(out, s)
		}
	}
	return out
}

func TestUpgrade(t *testing.T) {
	b := upgrading(t)
	for _, ev := range []Event{HandoverRequested{}, ScaleRequested{Followers: 1}, RemoveRequested{Address: id(7001).Address}, UpgradeRequested{}} {
		if a := find[Answer](t, b.do(ev)); !strings.Contains(a.Refused, "upgraded to /new") {
			t.Errorf("%T: %+v", ev, a)
		}
	}
	es := b.comes(7003, 4)
	if s := spawns(es); len(s) != 1 || s[0] != (Spawn{Slot: 5, Build: "/new"}) {
		t.Fatalf("starts after the first new follower is in sync: %v", s)
	}
	if b.state(7001) != "in_sync" || b.state(7002) != "in_sync" {
		t.Fatalf("an old follower left too early: %s", b.c.Roster())
	}
	es = b.comes(7004, 5)
	b.expect(es[3:], "Publish", "Publish", "Dismiss 127.0.0.1:7001", "Publish", "Dismiss 127.0.0.1:7002")
	if b.state(7001) != "leaving" || b.state(7002) != "leaving" {
		t.Fatalf("%s", b.c.Roster())
	}
	b.do(Died{ID: id(7001)})
	if b.c.Roster().Successor.IsValid() {
		t.Fatal("the leader handed over while an old follower was alive")
	}
	es = b.do(Died{ID: id(7002)})
	if b.c.Roster().Successor != id(7003).Address || len(spawns(es)) != 0 {
		t.Fatalf("%s, %v", b.c.Roster(), spawns(es))
	}
	if a := find[Answer](t, b.known(7003, 7004)); a.Refused != "" || a.Member != id(7003) || a.Ref != any(1) {
		t.Errorf("answer %+v", a)
	}
}

// If any part of an upgrade fails, everything stays as it was.
func TestUpgradeThatFails(t *testing.T) {
	fails := map[string]func(b *bench) []Effect{
		"exit status 3": func(b *bench) []Effect { return b.do(SpawnFailed{Slot: 4, Build: "/new", Reason: "exit status 3"}) },
		"ended: SIGSEGV": func(b *bench) []Effect {
			b.do(Spawned{Member: member(7003, 4, roster.Starting), Build: "/new"})
			return b.do(Died{ID: id(7003), Reason: "SIGSEGV"})
		},
		"the second one": func(b *bench) []Effect {
			b.comes(7003, 4)
			return b.do(SpawnFailed{Slot: 5, Build: "/new", Reason: "the second one"})
		},
		"the first again": func(b *bench) []Effect { b.comes(7003, 4); return b.do(Died{ID: id(7003), Reason: "the first again"}) },
		"in sync within 1m0s": func(b *bench) (es []Effect) { // it answers heartbeats, but does not catch up
			b.do(Spawned{Member: member(7003, 4, roster.Starting), Build: "/new"})
			b.do(Joined{Member: member(7003, 4, roster.Starting)})
			for range 2 * time.Minute / interval {
				b.now += interval / 2
				es = append(es, b.do(Progress{ID: id(7003)})...)
				es = append(es, b.known(7001, 7002)...)
			}
			return es
		},
	}
	for why, fail := range fails {
		b := upgrading(t)
		es := fail(b)
		if a := find[Answer](t, es); !strings.Contains(a.Refused, why) || a.Ref != any(1) {
			t.Errorf("%s: answer %+v", why, a)
		}
		for _, port := range []uint16{7001, 7002} {
			if b.state(port) != "in_sync" {
				t.Errorf("%s: %d is %s", why, port, b.state(port))
			}
		}
		for _, port := range []uint16{7003, 7004} {
			if s := b.state(port); s != "unknown" && s != "leaving" {
				t.Errorf("%s: the new follower on %d is %s", why, port, s)
			}
			b.do(Died{ID: id(port)})
		}
		if b.c.occupied() != "" || b.c.active() != 2 || b.c.Roster().Successor.IsValid() {
			t.Errorf("%s: %s, %s", why, b.c.occupied(), b.c.Roster())
		}
	}
}

// The starts of further new followers are aborted too.
func TestFailedUpgradeAbortsItsStarts(t *testing.T) {
	b := staffed(t, 7001, 7002)
	b.do(ScaleRequested{Followers: 3, Ref: 1})
	b.do(Spawned{Member: member(7005, 4, roster.Starting)})
	b.do(Joined{Member: member(7005, 4, roster.Starting), Last: b.c.appended, CanResume: true})
	b.do(Progress{ID: id(7005), Index: b.c.appended.Index})
	b.do(UpgradeRequested{Build: "/new", Patience: time.Minute, Ref: 1})
	b.comes(7006, 5)
	b.expect(b.do(SpawnFailed{Slot: 6, Build: "/new", Reason: "no"}), "Answer", "Publish", "Dismiss 127.0.0.1:7006", "AbortSpawn 7")
}

func TestStopEndsAnUpgrade(t *testing.T) {
	b := upgrading(t)
	es := b.do(StopRequested{Reason: "enough"})
	b.expect(es, "Answer", "AbortSpawn 4", "StopServing")
	if a := find[Answer](t, es); a.Refused == "" {
		t.Errorf("%+v", a)
	}
}

// A leader needs one follower to hand over to, even if none is wanted.
func TestUpgradeOfALeaderAlone(t *testing.T) {
	b := leader(t)
	b.do(ScaleRequested{Followers: 0, Ref: 1})
	for _, slot := range b.c.pendingSpawns() {
		b.do(SpawnFailed{Slot: slot, Build: "/new", Reason: "called back"})
	}
	slot := spawns(b.do(UpgradeRequested{Build: "/new", Patience: time.Minute, Ref: 2}))[0].Slot
	b.comes(7003, slot)
	if b.c.Roster().Successor != id(7003).Address {
		t.Errorf("%s", b.c.Roster())
	}
}

// The old followers are gone, and a new one dies. A follower of the new build replaces it.
func TestUpgradeHasNoWayBack(t *testing.T) {
	b := upgrading(t)
	b.comes(7003, 4)
	b.comes(7004, 5)
	b.do(Died{ID: id(7001)})
	es := b.do(Died{ID: id(7003), Reason: "SIGKILL"})
	if s := spawns(es); len(s) != 1 || s[0].Build != "/new" {
		t.Errorf("%v", s)
	}
	b.do(Died{ID: id(7002)})
	if b.c.Roster().Successor != id(7004).Address {
		t.Errorf("%s", b.c.Roster())
	}
}

// The leader dies during the upgrade. The next leader keeps the wanted number of followers, those
// of its own build first.
func TestUpgradeIsForgottenByTheNextLeader(t *testing.T) {
	for _, version := range []string{"old", "new"} {
		r := ros(3, 1, 7001, 7002, 7003, 7004)
		r.Followers = 2
		for i := range r.Members {
			r.Members[i].Version = "old"
			if a := r.Members[i].Address; a == id(7003).Address || a == id(7004).Address {
				r.Members[i].Version = "new"
			}
		}
		f := follower(t, 7001, r)
		f.c.self.Version = version
		f.takesOver()
		f.pass(f.c.cfg.Settle + interval)
		stays, goes := map[string]uint16{"old": 7002, "new": 7004}[version], map[string]uint16{"old": 7004, "new": 7002}[version]
		if f.c.active() != 2 || f.state(stays) == "leaving" || f.state(goes) != "leaving" {
			t.Errorf("under a leader of the %s build: %s", version, f.c.Roster())
		}
	}
}

// A process of an earlier start came up late in the slot of a start of the new build. The upgrade
// does not wait for this process.
func TestUpgradeWaitsForItsOwnProcesses(t *testing.T) {
	b := staffed(t, 7001, 7002)
	b.do(UpgradeRequested{Build: "/new", Patience: time.Hour})
	b.do(Joined{Member: member(7005, 4, roster.Starting), Last: pos(1, 1), CanResume: true})
	b.expect(b.do(Tick{}))
	b.do(Spawned{Member: member(7005, 4, roster.Starting)}) // from the earlier start
	b.expect(b.do(Tick{}))
	es := b.do(SpawnFailed{Slot: 4, Build: "/new", ID: id(7006), Reason: "its slot is owned", SlotBusy: true})
	if a := find[Answer](t, es); a.Refused == "" {
		t.Fatalf("answer %+v", a)
	}
}
