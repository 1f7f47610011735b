package core

import (
	"github.com/dynast-io/dynast/shared/rules/entry"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

// Effect is an order that the caller carries out. Only the types in this file are effects.
type Effect interface{ effect() }

// ExitCode is the exit code of a process; see docs/operations.md.
type ExitCode int

// The exit codes that the core asks for.
const (
	ExitDone        ExitCode = 0 // an orderly end
	ExitError       ExitCode = 1 // an unexpected error
	ExitLocked      ExitCode = 3 // another leader owns the data directory
	ExitUnreachable ExitCode = 4 // the leader cannot be reached
	ExitCorrupt     ExitCode = 6 // no usable replica
)

// Effects of every member.
type (
	// Watch opens a pidfd on the process and reports Died when it ends. It reports Died at once
	// if the process is already gone.
	Watch struct{ ID roster.ID }
	// Unwatch ends a Watch.
	Unwatch struct{ ID roster.ID }
	// Kill sends SIGKILL through the pidfd of a watched process.
	Kill struct {
		ID     roster.ID
		Reason string
	}
	// Beat sends a heartbeat. A follower sends it to its leader; the leader sends it to all
	// followers.
	Beat struct{}
	// Commit says that every entry up to Index is acknowledged or may be acknowledged now. The
	// caller applies these entries; on the leader, it also answers the clients that wait for
	// them.
	//
	// Index can be smaller than before: after a loss, the copy can be replaced by a shorter
	// one. Entries that are later appended to that copy are not committed just because the lost
	// entries were.
	Commit struct{ Index uint64 }
	// Sync makes the log durable up to its present end and reports Synced.
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
	// Follow opens the stream to the leader. If the stream breaks, the caller opens it again,
	// until another Follow or a takeover ends it.
	Follow struct{ Leader roster.Member }
	// Expect opens a stream to the member that will probably lead next, so that the stream is
	// ready when it does. This is only a hint: the stream may stay silent, and a later Follow
	// names the leader.
	Expect struct{ Leader roster.Member }
	// Unfollow ends the stream and drops everything that still arrives from it.
	Unfollow struct{}
	// Append appends the entries of a Received and reports Appended.
	Append struct{ Ref any }
	// Ack tells the leader how far the log reaches. The position includes the epoch, so that
	// the leader does not take a log for a prefix of its own when it is not.
	Ack struct{ Last entry.Position }
	// Resync opens the stream again, starting at the end of the log.
	Resync struct{ Reason string }
)

// Effects of a takeover.
type (
	// TryLock tries cluster.lock without waiting, reads succession.json, and
	// reports LockTaken or LockHeld.
	TryLock struct{}
	// Adopt appends the entries that the log of Slot holds after the own last entry.
	Adopt struct{ Slot int }
	// AdoptBest does the same with the most complete log of all slots.
	AdoptBest struct{ Reason string }
	// TakeSlot gives up the own slot, if there is one, and opens Slot instead.
	TakeSlot struct{ Slot int }
	// Claim durably replaces claims.json and reports Claimed or ClaimFailed.
	Claim struct{ Claims Claims }
	// BeginEpoch appends the first entry of an epoch and reports Appended.
	BeginEpoch struct{ Epoch uint64 }
	// WriteSuccession replaces succession.json and reports SuccessionWritten or
	// SuccessionFailed.
	WriteSuccession struct{ Epoch uint64 }
	// Lead makes the process the leader: it serves clients and accepts followers.
	Lead struct{ Epoch uint64 }
)

// Effects of a leader.
type (
	// Publish makes a roster the current one and sends it to all members.
	Publish struct{ Roster *roster.Roster }
	// PublishDeaths sends the history of deaths to the followers.
	PublishDeaths struct{ Deaths []Death }
	// Replicate says that there are new entries, or a new commit index, to send to all
	// followers.
	Replicate struct{}
	// SendFrom starts to send entries to a follower. The first one is the entry after index
	// After.
	SendFrom struct {
		ID    roster.ID
		After uint64
	}
	// SendSnapshot sends the database to a follower, then the entries after it.
	SendSnapshot struct{ ID roster.ID }
	// Spawn starts a follower for a slot and reports Spawned or SpawnFailed. Build is the build
	// that UpgradeRequested named; an empty string means the leader's own build.
	Spawn struct {
		Slot  int
		Build string
	}
	// AbortSpawn kills a process that has not completed its handshake. SpawnFailed follows.
	AbortSpawn struct {
		Slot   int
		Reason string
	}
	// Reattach takes over the control connection of a process that another leader started.
	Reattach struct{ Member roster.Member }
	// Release frees everything that is held for a process that is gone.
	Release struct{ ID roster.ID }
	// Dismiss tells a follower to leave.
	Dismiss struct {
		ID     roster.ID
		Reason string
	}
	// Admit answers a JoinRequested. Slot 0 means that the request was refused, and Reason says
	// why.
	Admit struct {
		Ref    any
		Slot   int
		Reason string
	}
	// Answer answers an operator's request. If the request was refused, Refused says why. If it
	// is done or certain to be done, Refused is empty.
	Answer struct {
		Ref     any
		Refused string
		// Member is the member that the request is about: the successor or the removed member.
		Member roster.ID
		// Before is how many followers the leader kept until now, and Followers how many it
		// keeps from now on.
		Before, Followers int
		// InPlace says that no follower could be defragmented. The caller has to defragment the
		// leader's database itself.
		InPlace bool
	}
	// Defragment asks a follower to defragment its database. Defragmented follows.
	Defragment struct{ ID roster.ID }
	// OweDefrag leaves a note in the own slot. The next process that opens the copy as a
	// follower defragments it.
	OweDefrag struct{}
	// Condemn leaves a note in a slot. The next process that opens the slot throws the copy
	// away, and no process leads with it. The note must be written before the caller carries
	// out the next effect.
	Condemn struct {
		Slot   int
		Reason string
	}
	// StopServing stops taking requests from clients. It reports ServingStopped when every
	// request that was taken is answered.
	StopServing struct{}
)

// Kind says what a Report is about.
type Kind uint8

// The kinds of reports.
const (
	LeaderLost Kind = iota // the leader is dead
	LeaderLeft             // the leader has ended after it handed over
	LeaderSilent
	TakingOver   // this process has taken the lock
	LossPossible // an acknowledged write may be lost; Detail has the indices
	TookOver
	SuccessionBlocked // claims.json or succession.json could not be written
	FollowingLeader   // this member follows a new leader
	Spawning
	SpawnDelayed
	MemberStarted
	MemberJoined
	MemberInSync
	MemberLagging
	MemberSilent
	MemberDied
	MemberLeaving
	MemberLeft // a follower that was told to leave has ended
	SpawnError
	Degraded
	Restored // enough followers are in sync again
	Stopping
	HandingOver
	Scaled
	Differs // the keys of a replica differ from what they must be
	Defragmentation
	Upgrading
	StrangerFound // a living process owns a slot but is not a member
)

var kindNames = [...]string{
	"leader_lost", "leader_left", "leader_silent", "taking_over", "loss_possible", "took_over", "succession_blocked", "following",
	"spawning", "spawn_delayed", "member_started", "member_joined", "member_in_sync", "member_lagging",
	"member_silent", "member_died", "member_leaving", "member_left", "spawn_error", "degraded", "restored", "stopping",
	"handing_over", "scaled", "differs", "defragmentation", "upgrading", "stranger_found",
}

func (k Kind) String() string { return kindNames[k] }

// Kinds returns all kinds of reports.
func Kinds() []Kind {
	all := make([]Kind, len(kindNames))
	for i := range all {
		all[i] = Kind(i)
	}
	return all
}

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
func (Claim) effect()           {}
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
