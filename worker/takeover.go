package worker

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/worker/replica"
	"github.com/dynast-io/dynast/worker/state"
)

// takeover carries out how a member becomes leader. It handles the lock and the files in the
// data directory that name the leader. The loop uses it.
type takeover struct {
	*state.Shared
	replica *replica.Replica
	lock    *proc.Lock // cluster.lock; nil until this process leads
}

// tryLock tries to take cluster.lock and reads succession.json. A process that has the lock
// keeps it until it exits.
func (t *takeover) tryLock() {
	if slot := t.replica.Current().Slot; slot.Number != 0 {
		if reason, condemned := slot.Condemned(); condemned {
			t.Fatal(core.ExitCorrupt, fmt.Errorf("this member cannot lead, its copy is condemned: %s", reason))
			return
		}
	}
	if t.lock == nil {
		lock, err := proc.TryLock(t.Dir.ClusterLock())
		switch {
		case errors.Is(err, proc.ErrLocked):
			t.Post(t.lockHeld())
			return
		case err != nil:
			t.Fatal(core.ExitError, err)
			return
		}
		t.lock = lock
		t.replica.Supersede() // a snapshot that still waits for disk space is no longer wanted
	}
	s, err := t.Dir.ReadSuccession()
	ev := core.LockTaken{Succession: toCore(s, err), At: time.Now()}
	ev.Claims, ev.ClaimsUnreadable = replica.ReadClaims(t.Dir, t.Log)
	ev.Unreadable = err != nil && !errors.Is(err, os.ErrNotExist)
	if ev.Succession == nil {
		if ev.AnyData, err = t.replica.AnyData(); err != nil {
			t.Fatal(core.ExitError, err)
			return
		}
	}
	t.Post(ev)
}

// lockHeld describes the holder of the lock: the leader that succession.json names, or a
// process that is taking over.
func (t *takeover) lockHeld() core.LockHeld {
	ev := core.LockHeld{Succession: toCore(t.Dir.ReadSuccession())}
	if owner, err := proc.ReadOwner(t.Dir.ClusterLock()); err == nil {
		ev.Holder = roster.ID{PID: owner.Identity.PID, StartTime: owner.Identity.StartTime}
		ev.HolderStopped = proc.Stopped(owner.Identity)
	}
	return ev
}

func toCore(s datadir.Succession, err error) *core.Succession {
	if err != nil {
		return nil
	}
	id, err := successionLeader(s)
	if err != nil {
		return nil
	}
	return &core.Succession{Epoch: s.Epoch, Slot: s.Slot, Leader: id}
}

// claim replaces claims.json and makes it durable.
func (t *takeover) claim(c core.Claims) {
	go func() {
		err := t.Dir.WriteClaims(datadir.Claims{ClusterID: t.Self.ClusterID, Epoch: c.Epoch, Abandoned: c.Abandoned, At: time.Now()})
		if err != nil {
			t.Post(core.ClaimFailed{Reason: err.Error()})
			return
		}
		t.Post(core.Claimed{})
	}()
}

// surveyOwners tells the core which living processes own slots.
func (t *takeover) surveyOwners() {
	metas, err := t.Dir.Metas()
	if err != nil {
		t.Log.Debug("cannot list the slots", "error", err)
		return
	}
	for _, meta := range metas {
		if meta.BootID != t.Self.BootID || meta.PID == t.Self.Process.PID {
			continue
		}
		id, err := proc.Identify(meta.PID)
		if err != nil || id.StartTime != meta.StartTime {
			continue // the process is dead
		}
		if address, err := roster.ParseAddress(meta.Address); err == nil {
			t.Post(core.SlotOwned{ID: roster.ID{Address: address, PID: id.PID, StartTime: id.StartTime}})
		}
	}
}

// name writes this member into succession.json and makes it durable.
func (t *takeover) name(epoch uint64) {
	slot := t.replica.Current().Slot.Number
	go func() {
		if err := t.Dir.WriteSuccession(t.succession(epoch, slot)); err != nil {
			t.Post(core.SuccessionFailed{Reason: err.Error()})
			return
		}
		t.Post(core.SuccessionWritten{})
	}()
}

// succession returns the content of succession.json for this member as leader.
func (t *takeover) succession(epoch uint64, slot int) datadir.Succession {
	return datadir.Succession{
		ClusterID: t.Self.ClusterID, Epoch: epoch, Slot: slot,
		Leader: datadir.Leader{Address: t.Self.Address.String(), PID: t.Self.Process.PID, StartTime: t.Self.Process.StartTime},
		Client: t.Settings.Start.Client.Listen, BootID: t.Self.BootID, At: time.Now(),
	}
}

func successionLeader(s datadir.Succession) (roster.ID, error) {
	a, err := roster.ParseAddress(s.Leader.Address)
	if err != nil {
		return roster.ID{}, err
	}
	return roster.ID{Address: a, PID: s.Leader.PID, StartTime: s.Leader.StartTime}, nil
}
