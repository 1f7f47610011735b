package core

import (
	"github.com/dynast-io/dynast/shared/entry"
	"github.com/dynast-io/dynast/shared/roster"
)

// Effect is something to be done. The set is closed.
type Effect interface{ effect() }

// ExitCode is the exit code of a process; see docs/operations.md.
type ExitCode int

// The exit codes that the core asks for.
const (
	ExitDone        ExitCode = 0 // an orderly end
	ExitError       ExitCode = 1 // a fault that the process cannot account for
	ExitLocked      ExitCode = 3 // another leader owns the data directory
	ExitUnreachable ExitCode = 4 // the leader to be followed cannot be reached
	ExitCorrupt     ExitCode = 6 // no usable replica
)

// Effects of every member.
type (
	// Watch opens a pidfd on the process and reports Died, at once if it is gone already.
	Watch struct{ ID roster.ID }
	// Unwatch ends a Watch.
	Unwatch struct{ ID roster.ID }
	// Kill sends SIGKILL through the pidfd of a watched process.
	Kill struct {
		ID     roster.ID
		Reason string
	}
	// Beat sends a heartbeat: a follower's to its leader, the leader's to all.
	Beat struct{}
	// Commit says that everything up to Index is acknowledged or will be: apply
	// it and, on the leader, answer who waits. It is less than the one before when the
	// copy was replaced by one that is shorter, after a loss: what is appended to that
	// one is not committed because the lost entries were.
	Commit struct{ Index uint64 }
	// Sync makes the log durable up to where it is now and reports Synced.
	Sync struct{}
	// Exit ends the process.
	Exit struct {
		Code   ExitCode
		Reason string
	}
	// Report is for logs, counters and tests.
	Report struct {
		Kind   Kind
		Member roster.ID
		Detail string
	}
)

// Effects of a follower.
type (
	// Follow opens the stream to the leader, again and again until another Follow
	// or a takeover ends it.
	Follow struct{ Leader roster.Member }
	// Expect opens the stream to the member that is likely to lead next, so that
	// it is there when that member leads. It is a hint: the stream may stay
	// silent, and a Follow decides.
	Expect struct{ Leader roster.Member }
	// Unfollow ends the stream and drops what is still to come from it.
	Unfollow struct{}
	// Append appends the entries of a Received and reports Appended.
	Append struct{ Ref any }
	// Ack tells the leader how far the log reaches. The position has its epoch, so
	// that a log which is not a beginning of the leader's does not pass for one.
	Ack struct{ Last entry.Position }
	// Resync opens the stream anew, from the place that the log has reached.
	Resync struct{ Reason string }
)

// Effects of a takeover.
type (
	// TryLock tries cluster.lock without waiting, reads succession.json, and
	// reports LockTaken or LockHeld.
	TryLock struct{}
	// Adopt appends what the log of Slot holds beyond the own last entry.
	Adopt struct{ Slot int }
	// AdoptBest does the same with the most complete log among all slots.
	AdoptBest struct{ Reason string }
	// TakeSlot leaves the own slot, if any, and opens Slot as the own one.
	TakeSlot struct{ Slot int }
	// BeginEpoch appends the first entry of an epoch and reports Appended.
	BeginEpoch struct{ Epoch uint64 }
	// WriteSuccession replaces succession.json.
	WriteSuccession struct{ Epoch uint64 }
	// Lead makes the process the leader: serve clients, accept followers.
	Lead struct{ Epoch uint64 }
)

// Effects of a leader.
type (
	// Publish makes a roster the current one and sends it to everyone.
	Publish struct{ Roster *roster.Roster }
	// PublishDeaths sends the history of deaths to the followers.
	PublishDeaths struct{ Deaths []Death }
	// Replicate says that there are entries, or a commit index, to send to all.
	Replicate struct{}
	// SendFrom starts sending entries to a follower, beginning after Index.
	SendFrom struct {
		ID    roster.ID
		After uint64
	}
	// SendSnapshot sends the database to a follower, and the entries after it.
	SendSnapshot struct{ ID roster.ID }
	// Spawn starts a follower for a slot and reports Spawned or SpawnFailed. Build is
	// what UpgradeRequested named; empty is the leader's own.
	Spawn struct {
		Slot  int
		Build string
	}
	// AbortSpawn kills a process that never shook hands; SpawnFailed follows.
	AbortSpawn struct {
		Slot   int
		Reason string
	}
	// Reattach takes over the control of a process that another leader started.
	Reattach struct{ Member roster.Member }
	// Release drops everything held for a process that is gone.
	Release struct{ ID roster.ID }
	// Dismiss tells a follower to leave.
	Dismiss struct {
		ID     roster.ID
		Reason string
	}
	// Admit answers a JoinRequested; Slot 0 is a refusal.
	Admit struct {
		Ref    any
		Slot   int
		Reason string
	}
	// Answer answers an operator's request. Refused says why it is not done; it is
	// empty when it is done, or certain to be.
	Answer struct {
		Ref     any
		Refused string
		// Member is whom the request was about: the successor, the removed.
		Member roster.ID
		// Before and Followers are how many followers were kept, and are from now on.
		Before, Followers int
		// InPlace: no follower could be defragmented; the leader is left to the asker.
		InPlace bool
	}
	// Defragment asks a follower to rewrite its database; Defragmented follows.
	Defragment struct{ ID roster.ID }
	// OweDefrag leaves a note in the own slot: whoever opens the copy next as a
	// follower is to rewrite it.
	OweDefrag struct{}
	// Condemn leaves a note in a slot: the copy is to be thrown away by whoever
	// opens it next, and nobody leads with it. It is carried out when it returns.
	Condemn struct {
		Slot   int
		Reason string
	}
	// StopServing takes no more from clients and reports ServingStopped when
	// what was taken is answered.
	StopServing struct{}
)

// Kind says what a Report is about.
type Kind uint8

// The kinds of reports.
const (
	LeaderLost Kind = iota // the leader is dead
	LeaderSilent
	TakingOver   // the lock is taken
	LossPossible // an acknowledged write may be lost; Detail has the indices
	TookOver
	SuccessionBlocked // succession.json cannot be replaced: disk full, ...
	FollowingLeader   // a new leader is followed
	Spawning
	SpawnDelayed
	MemberStarted
	MemberJoined
	MemberInSync
	MemberLagging
	MemberSilent
	MemberDied
	MemberLeaving
	SpawnError
	Degraded
	Restored // enough followers in sync again
	Stopping
	HandingOver
	Scaled
	Differs // a replica holds other keys than it must
	Defragmentation
	Upgrading
)

var kindNames = [...]string{
	"leader_lost", "leader_silent", "taking_over", "loss_possible", "took_over", "succession_blocked", "following",
	"spawning", "spawn_delayed", "member_started", "member_joined", "member_in_sync", "member_lagging",
	"member_silent", "member_died", "member_leaving", "spawn_error", "degraded", "restored", "stopping",
	"handing_over", "scaled", "differs", "defragmentation", "upgrading",
}

func (k Kind) String() string { return kindNames[k] }

func (Watch) effect()           {}
func (Unwatch) effect()         {}
func (Kill) effect()            {}
func (Beat) effect()            {}
func (Commit) effect()          {}
func (Sync) effect()            {}
func (Exit) effect()            {}
func (Report) effect()          {}
func (Follow) effect()          {}
func (Expect) effect()          {}
func (Unfollow) effect()        {}
func (Append) effect()          {}
func (Ack) effect()             {}
func (Resync) effect()          {}
func (TryLock) effect()         {}
func (Adopt) effect()           {}
func (AdoptBest) effect()       {}
func (TakeSlot) effect()        {}
func (BeginEpoch) effect()      {}
func (WriteSuccession) effect() {}
func (Lead) effect()            {}
func (Publish) effect()         {}
func (PublishDeaths) effect()   {}
func (Replicate) effect()       {}
func (SendFrom) effect()        {}
func (SendSnapshot) effect()    {}
func (Spawn) effect()           {}
func (AbortSpawn) effect()      {}
func (Reattach) effect()        {}
func (Release) effect()         {}
func (Dismiss) effect()         {}
func (Admit) effect()           {}
func (Answer) effect()          {}
func (Defragment) effect()      {}
func (OweDefrag) effect()       {}
func (Condemn) effect()         {}
func (StopServing) effect()     {}
