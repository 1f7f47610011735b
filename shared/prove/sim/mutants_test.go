package sim

import (
	"errors"
	"strings"
	"testing"

	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/entry"
)

// mutants break the contract between the core and its driver, or a rule of the core at the place
// where it shows. The simulator must catch each of them.
var mutants = []mutant{
	{name: "an fsync does nothing", effect: on(func(p *process, _ core.Sync) {
		p.post(core.Synced{Last: p.last()})
	})},
	{name: "a failed fsync counts as successful", effect: on(func(p *process, _ core.Sync) {
		if p.w.rng.IntN(20) > 0 {
			p.sync()
			return
		}
		p.post(core.Synced{Last: p.last()})
	})},
	{name: "a write is acknowledged before a follower has it", event: func(p *process, ev core.Event) core.Event {
		if a, ok := ev.(core.Progress); ok {
			a.Index = 1 << 40
			return a
		}
		return ev
	}},
	{name: "leadership without taking the lock", effect: on(func(p *process, _ core.TryLock) {
		p.post(core.LockTaken{Succession: p.w.succession, AnyData: true})
	})},
	{name: "the lock is released at promotion", effect: also(func(p *process, _ core.Lead) {
		p.w.lock.holder = nil
	})},
	{name: "a silent leader is bypassed, not killed", effect: on(func(p *process, e core.Kill) {
		p.post(core.Died{ID: e.ID, Reason: "assumed"})
	})},
	{name: "a death is reported before it is certain", effect: also(func(p *process, e core.Kill) {
		p.post(core.Died{ID: e.ID, Reason: "assumed"})
		p.w.lock.holder = nil
	})},
	{name: "the dead leader's log is not read", effect: on(func(p *process, _ core.Adopt) {
		p.post(core.Adopted{Last: p.last(), Slot: p.disk.slot})
	})},
	{name: "the last entry of the dead leader's log is not read", effect: on(func(p *process, e core.Adopt) {
		d := p.w.disk(e.Slot)
		if n := p.end(); d.holds(p.last()) && uint64(len(d.log)) > n {
			p.disk.put(n, d.log[n:len(d.log)-1])
		}
		p.post(core.Adopted{Last: p.last(), Slot: p.disk.slot})
	})},
	{name: "succession.json is not written", effect: on(func(p *process, _ core.WriteSuccession) {
		p.post(core.SuccessionWritten{})
	})},
	{name: "succession.json names the slot of the previous leader", effect: on(func(p *process, e core.WriteSuccession) {
		s := core.Succession{Epoch: e.Epoch, Slot: p.disk.slot, Leader: p.id}
		if p.w.succession != nil {
			s.Slot = p.w.succession.Slot
		}
		p.w.succession = &s
		p.post(core.SuccessionWritten{})
	})},
	{name: "the epoch does not grow", effect: on(func(p *process, e core.WriteSuccession) {
		p.w.succession = &core.Succession{Epoch: e.Epoch - 1, Slot: p.disk.slot, Leader: p.id}
		p.post(core.SuccessionWritten{})
	})},
	{name: "the leader's death is not noticed", effect: on(func(*process, core.Watch) {})},
	{name: "entries are acknowledged but not written", effect: on(func(p *process, e core.Append) {
		r := e.Ref.(*received)
		last := entry.Position{Epoch: r.rs[len(r.rs)-1].epoch, Index: r.prev + uint64(len(r.rs))}
		p.post(core.Appended{Last: last})
	})},
	{name: "a snapshot lacks its last entry", event: func(p *process, ev core.Event) core.Event {
		if in, ok := ev.(core.Installed); ok {
			in.Last.Index++
			return in
		}
		return ev
	}},
	{name: "one entry is skipped in the stream", effect: on(func(p *process, e core.SendFrom) {
		e.After++
		p.sendFrom(e)
	})},
	{name: "no follower is spawned", effect: on(func(*process, core.Spawn) {})},
	{name: "followers send no heartbeats", effect: on(func(p *process, _ core.Beat) {
		if p.epoch != 0 {
			p.beat()
		}
	})},
	{name: "the leader sends no heartbeats", effect: on(func(p *process, _ core.Beat) {
		if p.epoch == 0 {
			p.beat()
		}
	})},
	{name: "silent members are not killed", effect: on(func(*process, core.Kill) {})},
	{name: "a follower that is not needed is neither dismissed nor killed", effect: func(_ *process, e core.Effect) bool {
		if k, ok := e.(core.Kill); ok {
			return strings.HasPrefix(k.Reason, "not a member")
		}
		_, ok := e.(core.Dismiss)
		return ok
	}},
	{name: "a stream begins before the entries of the previous one are in the log", eager: true, rare: true},
	{name: "a failed start is not reported", event: func(_ *process, ev core.Event) core.Event {
		if _, ok := ev.(core.SpawnFailed); ok {
			return core.Tick{}
		}
		return ev
	}},
	{name: "a possible loss is not reported", effect: on(func(p *process, e core.Report) {
		if e.Kind != core.LossPossible {
			p.do(e)
		}
	})},
	{name: "one entry more than committed is applied", event: func(p *process, ev core.Event) core.Event {
		if h, ok := ev.(core.Heard); ok {
			h.Commit++
			return h
		}
		return ev
	}},
}

// on replaces the handling of one kind of effect.
func on[E core.Effect](do func(*process, E)) func(*process, core.Effect) bool {
	return func(p *process, e core.Effect) bool {
		x, ok := e.(E)
		if ok {
			do(p, x)
		}
		return ok
	}
}

// also does something before the handling of one kind of effect.
func also[E core.Effect](do func(*process, E)) func(*process, core.Effect) bool {
	return func(p *process, e core.Effect) bool {
		if x, ok := e.(E); ok {
			do(p, x)
		}
		return false
	}
}

// TestMutants checks that the simulator finds each mutant. A simulator that finds nothing can be
// trusted only after this.
func TestMutants(t *testing.T) {
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	for i := range mutants {
		m := &mutants[i]
		t.Run(m.name, func(t *testing.T) {
			within := uint64(400)
			if m.rare {
				if within = 100_000; !*rare {
					t.Skip("run with -rare")
				}
			}
			for s := uint64(1); s <= within; s++ {
				_, err := Run(Config{Seed: s, mutant: m})
				if v := (*Violation)(nil); errors.As(err, &v) {
					t.Logf("caught by %v", v)
					return
				}
			}
			t.Errorf("not caught by %d seeds", within)
		})
	}
}
