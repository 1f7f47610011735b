package core

import (
	"time"

	"github.com/dynast-io/dynast/shared/rules/entry"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

// Event is something that happened. Only the types in this file are events.
type Event interface{ event() }

// Succession is the content of succession.json: the current epoch, its leader, and the slot
// whose log holds every acknowledged write.
type Succession struct {
	Epoch  uint64
	Slot   int
	Leader roster.ID
}

// Death is one entry in the history of deaths.
type Death struct {
	ID     roster.ID
	Reason string
	At     time.Time
	// ReplacedBy is the follower that was started in its place. For a leader, it is the member
	// that took over. It is zero until there is one.
	ReplacedBy roster.Address
}

// Events of every member.
type (
	// Boot is the first event, and comes only once. With Lead, the process must become leader:
	// it takes the lock or exits. Otherwise it follows the leader of Roster.
	Boot struct {
		Lead   bool
		Roster *roster.Roster
		// HasCopy says that the slot holds a usable replica, whose log ends at Last.
		HasCopy bool
		Last    entry.Position
		Deaths  []Death
	}
	// Tick says that the time that Wake returned has come.
	Tick struct{}
	// Died says that a watched process is certainly gone.
	Died struct {
		ID     roster.ID
		Reason string
		At     time.Time
	}
	// Appended says that the log reaches Last. The entries are safe if the process crashes.
	Appended struct{ Last entry.Position }
	// Synced says that the log up to Last is safe if the host crashes.
	Synced struct{ Last entry.Position }
	// StopRequested asks for an orderly stop. If the member leads, the cluster stops; otherwise
	// only this member stops.
	StopRequested struct{ Reason string }
	// Configured says that the operator changed the configuration. It holds Config's MinSync
	// and Keeper.StartTimeout.
	Configured struct {
		MinSync      int
		StartTimeout time.Duration
	}
)

// Events of a follower.
type (
	// Heard is a message from the leader of Roster.
	Heard struct {
		Roster *roster.Roster
		Commit uint64
		Deaths []Death // nil: no change
	}
	// SilenceExcused says that silence at this moment proves nothing about the leader. Either this member
	// was busy with its own disk and could not listen, or the leader did not get a processor.
	SilenceExcused struct{}
	// LeaderStopped says that the kernel shows the leader's process as stopped by a signal, or
	// as running again after that.
	LeaderStopped struct {
		ID      roster.ID
		Stopped bool
	}
	// Received is a sequence of entries from the leader of Epoch; they follow Prev in the log.
	// Ref is the caller's handle on them.
	Received struct {
		Epoch  uint64
		Prev   entry.Position
		Last   entry.Position
		Commit uint64
		Ref    any
	}
	// Installed says that the replica was replaced by a copy of the leader's at Last.
	Installed struct{ Last entry.Position }
	// Dismissed says that the leader told this member to leave.
	Dismissed struct{ Reason string }
	// Introduced names the leader. It does not come from the leader's stream, but from another
	// source.
	Introduced struct{ Roster *roster.Roster }
)

// Events of a takeover.
type (
	// LockTaken says that this process holds cluster.lock. Succession is nil if succession.json
	// is missing or damaged; Unreadable says that it is damaged. Claims is nil if claims.json
	// is missing or damaged; ClaimsUnreadable says that it is damaged.
	LockTaken struct {
		Succession       *Succession
		Unreadable       bool
		Claims           *Claims
		ClaimsUnreadable bool
		// At is the wall-clock time. It is used only if Claims is missing and there is data.
		At time.Time
		// AnyData says that some slot holds a write or cannot be read. It is checked only if
		// there is no succession.json. A log that holds nothing but first entries of epochs
		// does not count. Such a log is left by a first start that was killed, and no client
		// ever got an answer then.
		AnyData bool
	}
	// LockHeld says that another process holds the lock. Holder is the process that took it, as
	// far as that is known; its address is unknown. HolderStopped says that a signal has
	// stopped it.
	LockHeld struct {
		Succession    *Succession
		Holder        roster.ID
		HolderStopped bool
	}
	// Adopted says that the own log now begins with everything that the other log holds. That
	// is the named log (after Adopt), the most complete log (after AdoptBest) or the log of the
	// taken slot (after TakeSlot).
	Adopted struct {
		Last entry.Position
		Slot int // the slot that the process owns now
		// Seen is the greatest epoch in any log that was read for this step. A log that ends
		// differently can hold the first entry of an epoch whose heir died before
		// succession.json named it.
		Seen uint64
		// Lost describes a loss that cannot be excluded. It is empty if a loss is excluded.
		Lost string
	}
	// AdoptFailed says that the step failed. Diverged says that the own log is no prefix of the
	// named one.
	AdoptFailed struct {
		Reason   string
		Diverged bool
		// Fatal says that there is nothing left to try.
		Fatal bool
	}
	// Claimed says that claims.json durably holds the content of the last Claim.
	Claimed struct{}
	// ClaimFailed says that claims.json could not be replaced, for example because the disk is
	// full.
	ClaimFailed struct{ Reason string }
	// SuccessionWritten says that succession.json durably names this member.
	SuccessionWritten struct{}
	// SuccessionFailed says that succession.json could not be replaced, for example because the
	// disk is full.
	SuccessionFailed struct{ Reason string }
)

// Events of a leader.
type (
	// Spawned says that the process for a slot exists and has completed its handshake. Build is
	// the Build of the Spawn.
	Spawned struct {
		Member roster.Member
		Build  string
	}
	// SpawnFailed says that the process did not start, or that it ended.
	SpawnFailed struct {
		Slot   int
		Build  string    // of the Spawn
		ID     roster.ID // zero if no process was created
		Reason string
		At     time.Time
		// SlotBusy says that another process owns the slot.
		SlotBusy bool
	}
	// JoinRequested is the request for a slot from a process that an operator started.
	JoinRequested struct {
		Member roster.Member
		Ref    any
	}
	// Joined says that a follower opened its stream. CanResume says that its Last is in the
	// leader's log, and that the leader can still send everything after it.
	Joined struct {
		Member    roster.Member
		Last      entry.Position
		CanResume bool
	}
	// Parted says that the stream of a follower ended. The process may still be alive.
	Parted struct{ ID roster.ID }
	// Progress is a follower's acknowledgement or heartbeat. Its log reaches Index. It knows
	// the leader's rosters up to version Known, as far as the caller can tell.
	Progress struct {
		ID    roster.ID
		Index uint64
		Known uint64
	}
	// Working says that a silent follower uses the processor or waits for one. Before it has
	// joined, it opens its copy; that takes longer the larger the copy is. Later, the host can
	// be overloaded.
	Working struct{ ID roster.ID }
	// SlotOwned names a living process that owns a slot. The caller reports all such processes
	// after Lead, and again every few seconds. An earlier leader can have started one just
	// before it died, and no other process knows of it.
	SlotOwned struct{ ID roster.ID }
	// Overtaken says that the log no longer holds the next entry that a follower needs.
	Overtaken struct{ ID roster.ID }
	// HandoverRequested asks for a hand-over to To, or to the heir if To is zero.
	HandoverRequested struct {
		To     roster.Address
		Reason string
		Ref    any
	}
	// ScaleRequested changes how many followers the leader keeps: to Followers or, if Relative
	// is set, by that many.
	ScaleRequested struct {
		Followers int
		Relative  bool
		Ref       any
	}
	// RemoveRequested asks the member at Address to leave. A new follower replaces it if too
	// few are left.
	RemoveRequested struct {
		Address roster.Address
		Ref     any
	}
	// UpgradeRequested asks to replace all processes by another build. Patience is how long the
	// new followers may take until they are in sync.
	UpgradeRequested struct {
		Build    string
		Patience time.Duration
		Ref      any
	}
	// DefragmentRequested asks to defragment the databases of all members.
	DefragmentRequested struct{ Ref any }
	// Defragmented says that a follower has defragmented its database. If that failed, Error
	// says why.
	Defragmented struct {
		ID    roster.ID
		Error string
	}
	// ReplicaDiffers says that the keys of a member differ from what they must be. ID can be
	// the leader itself; then its followers agree with each other. If Undecided is true, too few
	// copies could be compared to tell whether the keys of ID or the leader's are wrong.
	ReplicaDiffers struct {
		ID        roster.ID
		Detail    string
		Undecided bool
	}
	// ServingStopped says that the leader no longer serves clients. Every write that a client
	// sent was answered, was refused or is in the log. The log ends at Last; from now on
	// nothing is appended.
	ServingStopped struct{ Last entry.Position }
)

func (Boot) event()                {}
func (Tick) event()                {}
func (Died) event()                {}
func (Appended) event()            {}
func (Synced) event()              {}
func (StopRequested) event()       {}
func (Configured) event()          {}
func (Heard) event()               {}
func (SilenceExcused) event()      {}
func (LeaderStopped) event()       {}
func (Received) event()            {}
func (Installed) event()           {}
func (Dismissed) event()           {}
func (Introduced) event()          {}
func (LockTaken) event()           {}
func (LockHeld) event()            {}
func (Adopted) event()             {}
func (AdoptFailed) event()         {}
func (Claimed) event()             {}
func (ClaimFailed) event()         {}
func (SlotOwned) event()           {}
func (SuccessionWritten) event()   {}
func (SuccessionFailed) event()    {}
func (Spawned) event()             {}
func (SpawnFailed) event()         {}
func (JoinRequested) event()       {}
func (Joined) event()              {}
func (Parted) event()              {}
func (Progress) event()            {}
func (Overtaken) event()           {}
func (Working) event()             {}
func (HandoverRequested) event()   {}
func (ScaleRequested) event()      {}
func (RemoveRequested) event()     {}
func (DefragmentRequested) event() {}
func (Defragmented) event()        {}
func (ReplicaDiffers) event()      {}
func (UpgradeRequested) event()    {}
func (ServingStopped) event()      {}
