package worker

import (
	"time"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/observe/events"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/entry"
	"github.com/dynast-io/dynast/worker/link"
	"github.com/dynast-io/dynast/worker/operate"
	"github.com/dynast-io/dynast/worker/replica"
	"github.com/dynast-io/dynast/worker/serve"
)

// do carries out one effect. It never waits for a disk or a process.
func (m *Member) do(e core.Effect) {
	switch e := e.(type) {
	case core.Commit:
		m.Committed.Store(e.Index)
		m.replica.Commit(e.Index)
		if m.Leading.Load() {
			m.links.Committed()
		}
	case core.Sync:
		if !m.Leading.Load() {
			m.replica.Sync()
		} // a leader's writer has already started the fsync with the append
	case core.Beat:
		m.links.Beat()
	case core.Watch:
		m.Ensure(m.processes.watch(e.ID))
	case core.Unwatch:
		m.processes.Unwatch(e.ID)
	case core.Kill:
		m.Ensure(m.processes.Kill(e.ID))
	case core.Report:
		m.reported(e)
		m.history.reported(e)
	case core.Exit:
		m.End(e.Code, e.Reason)
	case core.Follow, core.Expect, core.Unfollow, core.Append, core.Ack, core.Resync:
		m.doFollower(e)
	case core.TryLock, core.Adopt, core.AdoptBest, core.TakeSlot, core.Claim, core.BeginEpoch, core.WriteSuccession, core.Lead:
		m.doTakeover(e)
	default:
		m.doLeader(e)
	}
}

func (m *Member) doFollower(e core.Effect) {
	switch e := e.(type) {
	case core.Follow:
		m.links.Follow(e.Leader)
	case core.Expect:
		m.links.Follow(e.Leader)
		m.replica.Pause()
	case core.Unfollow:
		m.links.Unfollow()
		m.replica.GoOn() // this member takes over, although another was first in line
	case core.Append:
		m.replica.Append(e.Ref.(*link.Received).Entries)
	case core.Ack:
		m.links.Ack(e.Last)
	case core.Resync:
		m.links.Resync(e.Reason)
	}
}

func (m *Member) doTakeover(e core.Effect) {
	switch e := e.(type) {
	case core.TryLock:
		m.takeover.tryLock()
	case core.Adopt:
		m.replica.Adopt(e.Slot)
	case core.AdoptBest:
		m.replica.AdoptBest(e.Reason)
	case core.TakeSlot:
		m.replica.TakeSlot(e.Slot)
	case core.Claim:
		m.takeover.claim(e.Claims)
	case core.BeginEpoch:
		m.replica.BeginEpoch(e.Epoch)
	case core.WriteSuccession:
		m.takeover.name(e.Epoch)
	case core.Lead:
		m.lead(e.Epoch)
	}
}

func (m *Member) doLeader(e core.Effect) {
	switch e := e.(type) {
	case core.Replicate:
		// The writer started it with the append, and Commit with the commit.
	case core.Publish:
		m.links.Replicate() // every message carries the roster
	case core.PublishDeaths:
		m.SetDeaths(e.Deaths)
		m.links.TellDeaths()
	case core.SendFrom:
		m.links.SendFrom(e.ID, e.After)
	case core.SendSnapshot:
		m.links.SendSnapshot(e.ID)
	case core.Spawn:
		m.history.rec.CountStart(e.Slot)
		m.processes.supervisor.Spawn(e.Slot, e.Build)
	case core.AbortSpawn:
		m.processes.supervisor.Abort(e.Slot, e.Reason)
	case core.Reattach:
		// The TLS handshake with its control service would compete with the clients that connect.
		supervisor := m.processes.supervisor
		m.afterClients(func() { supervisor.Reattach(e.Member) })
	case core.Release:
		m.processes.supervisor.Release(e.ID)
		m.processes.Unwatch(e.ID)
	case core.Dismiss:
		if !m.links.Dismiss(e.ID, e.Reason) {
			m.processes.supervisor.Retire(e.ID, e.Reason)
		}
	case core.Admit:
		e.Ref.(*operate.Admission).Answer(e)
	case core.StopServing:
		m.stopServing()
	case core.Answer:
		if answer, ok := e.Ref.(chan core.Answer); ok {
			answer <- e // the channel has room for this one answer
		}
	case core.Defragment:
		m.links.Defragment(e.ID)
	case core.OweDefrag:
		m.Note(m.replica.Current().Slot.OweDefrag())
	case core.Condemn:
		m.Note(m.Dir.Slot(e.Slot).Condemn(e.Reason))
	}
}

// lead makes this process the leader in everything outside the core.
func (m *Member) lead(epoch uint64) {
	if err := m.processes.makeSupervisor(); err != nil {
		m.Fatal(core.ExitError, err)
		return
	}
	m.Epoch.Store(epoch)
	m.Logs.SetEpoch(epoch)
	m.identity.lead()
	m.Note(replica.PreferForOOM(false))
	m.Leading.Store(true)
	m.history.lead()
	close(m.Leads)
	proc.SetTitle(titleLeader)
	m.replica.Lead(epoch)
	m.replica.Apply(m.beginServing)
}

// clientsFirst is how long a new leader delays work that no gRPC client waits for. By then it has
// usually answered the first requests.
const clientsFirst = 20 * time.Millisecond

func (m *Member) afterClients(do func()) {
	time.AfterFunc(clientsFirst, func() { m.Guarded(do) })
}

// beginServing runs on the applier's goroutine, right after the entries up to the first entry
// of the epoch are applied. It starts the leases and accepts clients.
func (m *Member) beginServing() {
	m.replica.Settle()
	m.replica.Space.Look() // before the first write is accepted
	m.replica.Current().Store.Promote(m.history.outage())
	serveHTTP := func() {}
	if !m.hosts.resume() { // otherwise the engine serves clients
		var err error
		if serveHTTP, err = m.clients.Serve(); err != nil {
			m.Fatal(core.ExitError, err)
			return
		}
	}
	m.history.serving(m.replica.Current().Slot.Number)
	m.operators.Open()
	// From here on nothing is urgent for the takeover: gRPC clients are already served. Preparing
	// the HTTP gateway would take processor time from their first requests.
	m.afterClients(serveHTTP)
	m.operators.OpenMore()
	go m.Guarded(m.processes.programs.begin)
	go m.Guarded(m.keepReaper)
}

// stopServing accepts no more requests and answers those that were accepted. The listening
// socket stays open for the next leader.
func (m *Member) stopServing() {
	go func() {
		go m.operators.StopDashboard()
		go m.processes.programs.release()
		m.clients.Stop()
		m.replica.Close(serve.DrainTimeout, func(last entry.Position) {
			m.processes.programs.release() // the successor must be the only one that starts processes
			m.Post(core.ServingStopped{Last: last})
		})
	}()
}

const (
	titleLeader   = "leader"
	titleFollower = "follower"
)

// reported logs what happened. Events are logged here and nowhere else.
func (m *Member) reported(r core.Report) {
	args := []any{"event", r.Kind.String()}
	if r.Member.Address.IsValid() {
		args = append(args, "member", r.Member.Address.String(), "pid", r.Member.PID)
	}
	if r.Detail != "" {
		args = append(args, "detail", r.Detail)
	}
	if r.Kind == core.Stopping && !m.processes.programs.again.Load() {
		m.operators.Stopping()
	}
	m.Log.Log(events.LevelOf(r.Kind.String()).Hclog(), reportTexts[r.Kind], args...)
}

var reportTexts = map[core.Kind]string{
	core.LossPossible: "acknowledged writes may be lost", core.Differs: "a replica holds wrong keys",
	core.LeaderLost: "leader died", core.LeaderLeft: "leader has handed over", core.LeaderSilent: "leader is silent, killing it",
	core.TakingOver: "taking over", core.TookOver: "became leader", core.FollowingLeader: "following leader",
	core.SuccessionBlocked: "cannot replace succession.json, trying again",
	core.Spawning:          "starting a follower", core.SpawnDelayed: "delaying the start of a follower",
	core.MemberStarted: "follower started", core.MemberJoined: "follower joined", core.MemberInSync: "follower in sync",
	core.MemberLagging: "follower lags", core.MemberSilent: "follower is silent, killing it",
	core.MemberDied: "follower died", core.MemberLeaving: "follower is leaving", core.MemberLeft: "follower has left", core.SpawnError: "follower did not start",
	core.Degraded: "degraded", core.Restored: "no longer degraded", core.Stopping: "stopping the cluster",
	core.HandingOver: "handing over", core.Scaled: "changed the number of followers", core.Defragmentation: "defragmentation", core.Upgrading: "upgrade",
	core.StrangerFound: "found a process that owns a slot but is not a member",
}
