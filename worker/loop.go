package worker

import (
	"runtime/debug"
	"sync"
	"time"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/proc"
	"github.com/dynast-io/dynast/shared/roster"
	"github.com/dynast-io/dynast/shared/wire"
)

func stack() []byte { return debug.Stack() }

// now is the core's clock: monotonic, from the start of the process, never 0.
func (m *Member) now() time.Duration { return time.Since(m.started) + 1 }

// turn is who feeds the core: one goroutine at a time. It is the loop's, or
// that of somebody with an event which writes wait for.
type turn struct {
	mu    sync.Mutex
	batch []mail
	wake  time.Duration // when the loop will look at the time by itself
}

// loop owns the core: it feeds it what happened and does what it says, until
// the process is to end.
func (m *Member) loop() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		m.turn.mu.Lock()
		m.readMail()
		if m.now() >= m.core.Wake() {
			m.step(core.Tick{})
		}
		m.turn.wake = m.core.Wake()
		m.turn.mu.Unlock()
		if !m.mail.empty() {
			continue
		}
		timer.Reset(max(m.turn.wake-m.now(), 0))
		select {
		case <-m.mail.notify:
		case <-timer.C:
		case <-m.ended:
			return
		}
	}
}

// readMail feeds the core with everything that waits. The turn is held.
func (m *Member) readMail() {
	batch := m.mail.take(m.turn.batch)
	for i := range batch {
		select {
		case <-m.ended:
			return
		default:
		}
		if batch[i].ask != nil {
			batch[i].ask()
		} else {
			m.step(batch[i].event)
		}
		batch[i] = mail{}
	}
	m.turn.batch = batch
}

// postNow is post for the few events that each write waits for: the caller
// feeds the core itself, if nobody does at this moment, which saves the change to the
// loop's goroutine and back. The caller must hold no lock, since it may have
// to carry out any effect.
func (m *Member) postNow(ev core.Event) {
	m.mail.put(mail{event: ev})
	m.readMailNow()
}

func (m *Member) readMailNow() {
	// Who has the turn looks again after it has let go of it: nothing is left behind.
	for !m.mail.empty() && m.turn.mu.TryLock() {
		m.guarded(m.readMail)
		early := m.core.Wake() < m.turn.wake
		m.turn.mu.Unlock()
		if early {
			m.mail.wake()
		}
	}
}

func (m *Member) step(ev core.Event) {
	effects := m.core.Step(m.now(), ev)
	if r := m.core.Roster(); r != m.roster() {
		if r.Epoch != m.roster().Epoch {
			m.logs.SetEpoch(r.Epoch)
		}
		m.publish(r)
		if !m.leading.Load() {
			m.upstream.keepWarm(r)
		}
	}
	for _, e := range effects {
		m.do(e)
	}
}

// ask runs a question on the loop's goroutine and waits for it; false when the
// process ends before.
func (m *Member) ask(f func()) bool {
	done := make(chan struct{})
	m.mail.post(mail{ask: func() { f(); close(done) }})
	select {
	case <-done:
		return true
	case <-m.ended:
		return false
	}
}

// do carries out one effect. Nothing here waits for a disk or a process.
func (m *Member) do(e core.Effect) {
	switch e := e.(type) {
	case core.Commit:
		m.committed.Store(e.Index)
		m.applier.commit(e.Index)
		if m.leading.Load() {
			m.downstream.pace.committed()
		}
	case core.Sync:
		if !m.leading.Load() {
			m.syncer.sync()
		} // or else the writer has begun it with the append
	case core.Beat:
		m.beat()
	case core.Watch:
		m.watches.watch(e.ID)
	case core.Unwatch:
		m.watches.unwatch(e.ID)
	case core.Kill:
		m.watches.kill(e.ID)
	case core.Report:
		m.reported(e)
		m.history.reported(e)
	case core.Exit:
		m.end(e.Code, e.Reason)
	case core.Follow, core.Expect, core.Unfollow, core.Append, core.Ack, core.Resync:
		m.doFollower(e)
	case core.TryLock, core.Adopt, core.AdoptBest, core.TakeSlot, core.BeginEpoch, core.WriteSuccession, core.Lead:
		m.doTakeover(e)
	default:
		m.doLeader(e)
	}
}

func (m *Member) beat() {
	if m.leading.Load() {
		m.downstream.beat()
		m.silence.look(time.Now(), true)
	} else {
		m.upstream.heartbeat()
		m.lookAtLeader()
		m.silence.look(time.Now(), false)
	}
}

// lookAtLeader asks the kernel whether the leader is stopped by a signal. What
// is told late of a process that is gone is corrected by its pidfd.
func (m *Member) lookAtLeader() {
	leader, ok := m.roster().LeaderMember()
	if !ok {
		return
	}
	stopped := proc.Stopped(proc.Identity{PID: leader.PID, StartTime: leader.StartTime})
	if stopped || m.sawStopped {
		m.sawStopped = stopped
		m.post(core.LeaderStopped{ID: leader.ID, Stopped: stopped})
	}
}

func (m *Member) doFollower(e core.Effect) {
	switch e := e.(type) {
	case core.Follow:
		m.upstream.follow(e.Leader)
	case core.Expect:
		m.upstream.follow(e.Leader)
	case core.Unfollow:
		m.upstream.stop()
	case core.Append:
		m.writer.appendReceived(e.Ref.(*received))
	case core.Ack:
		m.upstream.ack(e.Last)
	case core.Resync:
		m.upstream.resync(e.Reason)
	}
}

func (m *Member) doTakeover(e core.Effect) {
	switch e := e.(type) {
	case core.TryLock:
		m.tryLock()
	case core.Adopt:
		m.adopt(e.Slot)
	case core.AdoptBest:
		m.adoptBest(e.Reason)
	case core.TakeSlot:
		m.takeSlot(e.Slot)
	case core.BeginEpoch:
		m.writer.beginEpoch(e.Epoch)
	case core.WriteSuccession:
		m.writeSuccession(e.Epoch)
	case core.Lead:
		m.lead(e.Epoch)
	}
}

func (m *Member) doLeader(e core.Effect) {
	switch e := e.(type) {
	case core.Replicate:
		// The writer has begun it with the append, Commit with the commit.
	case core.Publish:
		m.downstream.replicate() // it rides on every message
	case core.PublishDeaths:
		m.deaths.Store(wire.FromDeaths(e.Deaths))
		m.downstream.tellDeaths()
	case core.SendFrom:
		m.downstream.sendFrom(e.ID, e.After)
	case core.SendSnapshot:
		m.downstream.sendSnapshot(e.ID)
	case core.Spawn:
		m.history.rec.CountStart(e.Slot)
		m.supervisor.Spawn(e.Slot, e.Build)
	case core.AbortSpawn:
		m.supervisor.Abort(e.Slot, e.Reason)
	case core.Reattach:
		m.supervisor.Reattach(e.Member)
	case core.Release:
		m.supervisor.Release(e.ID)
		m.watches.unwatch(e.ID)
	case core.Dismiss:
		if !m.downstream.dismiss(e.ID, e.Reason) {
			m.supervisor.Retire(e.ID, e.Reason)
		}
	case core.Admit:
		e.Ref.(*admission).answer(e)
	case core.StopServing:
		m.stopServing()
	case core.Answer:
		if answer, ok := e.Ref.(chan core.Answer); ok {
			answer <- e // it has room for the one
		}
	case core.Defragment:
		m.downstream.defragment(e.ID)
	case core.OweDefrag:
		m.note(m.replica.current().slot.OweDefrag())
	case core.Condemn:
		m.note(m.dir.Slot(e.Slot).Condemn(e.Reason))
	}
}

// note logs that a note could not be left in a slot. What it was about is found
// out again, or asked for again.
func (m *Member) note(err error) {
	if err != nil {
		m.logger.Error("note for the next process", "error", err)
	}
}

// lead makes this process the leader in everything that is not the core's.
func (m *Member) lead(epoch uint64) {
	if err := m.startSupervisor(); err != nil {
		m.fatal(core.ExitError, err)
		return
	}
	m.epoch.Store(epoch)
	m.logs.SetEpoch(epoch)
	self := *m.me.Load()
	self.Role, self.State = roster.Leader, roster.Serving
	m.me.Store(&self)
	m.replica.current().log.BoundTail(leaderTailBytes)
	m.leading.Store(true)
	m.history.lead()
	close(m.leads)
	proc.SetTitle(titleLeader)
	m.writer.lead(epoch)
	m.applier.do(m.beginServing)
}

const (
	titleLeader   = "leader"
	titleFollower = "follower"
)

// reported is the one place where what happened is logged.
func (m *Member) reported(r core.Report) {
	args := []any{"event", r.Kind.String()}
	if r.Member.Address.IsValid() {
		args = append(args, "member", r.Member.Address.String(), "pid", r.Member.PID)
	}
	if r.Detail != "" {
		args = append(args, "detail", r.Detail)
	}
	if r.Kind == core.Stopping {
		m.service.stop()
	}
	switch r.Kind {
	case core.LossPossible:
		m.logger.Error("acknowledged writes may be lost", args...)
	case core.Differs:
		m.logger.Error("a replica holds other keys than it must", args...)
	case core.LeaderLost, core.LeaderSilent, core.MemberDied, core.MemberSilent, core.MemberLagging,
		core.SpawnError, core.SpawnDelayed, core.Degraded, core.SuccessionBlocked:
		m.logger.Warn(reportTexts[r.Kind], args...)
	default:
		m.logger.Info(reportTexts[r.Kind], args...)
	}
}

var reportTexts = map[core.Kind]string{
	core.LeaderLost: "the leader is dead", core.LeaderSilent: "the leader is silent and is ended",
	core.TakingOver: "takes over", core.TookOver: "leads", core.FollowingLeader: "follows",
	core.SuccessionBlocked: "succession.json cannot be replaced, tries again",
	core.Spawning:          "starts a follower", core.SpawnDelayed: "waits before it starts a follower",
	core.MemberStarted: "follower started", core.MemberJoined: "follower joined", core.MemberInSync: "follower in sync",
	core.MemberLagging: "follower lags", core.MemberSilent: "follower is silent and is ended",
	core.MemberDied: "follower is gone", core.MemberLeaving: "follower leaves", core.SpawnError: "a follower did not start",
	core.Degraded: "degraded", core.Restored: "no longer degraded", core.Stopping: "stops",
	core.HandingOver: "hands over", core.Scaled: "keeps another number of followers", core.Defragmentation: "defragmentation", core.Upgrading: "upgrade",
}
