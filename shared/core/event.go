package core

import (
	"time"

	"github.com/dynast-io/dynast/shared/entry"
	"github.com/dynast-io/dynast/shared/roster"
)

// Event is something that happened. The set is closed.
type Event interface{ event() }

// Succession is what succession.json says: which epoch is in force, who leads
// it, and the slot whose log holds every acknowledged write.
type Succession struct {
	Epoch  uint64
	Slot   int
	Leader roster.ID
}

// Death is a line of the history of deaths.
type Death struct {
	ID     roster.ID
	Reason string
	At     time.Time
	// ReplacedBy is the follower started in its place or, for a leader, the
	// member that inherited; zero until there is one.
	ReplacedBy roster.Address
}

// The events that every member can get.
type (
	// Boot is the first event, once. With Lead the process is to become leader
	// and takes the lock or ends; else it follows the leader of Roster.
	Boot struct {
		Lead   bool
		Roster *roster.Roster
		// HasCopy says that the slot holds a usable replica, up to Last.
		HasCopy bool
		Last    entry.Position
		Deaths  []Death
	}
	// Tick says that the time of Wake has come.
	Tick struct{}
	// Died says that a watched process is gone for certain.
	Died struct {
		ID     roster.ID
		Reason string
		At     time.Time
	}
	// Appended says that the log reaches to Last, safe from the process's death.
	Appended struct{ Last entry.Position }
	// Synced says that the log up to Last is safe from the host's death.
	Synced struct{ Last entry.Position }
	// StopRequested asks for an orderly end: of the cluster when the member
	// leads, of this member when it follows.
	StopRequested struct{ Reason string }
	// Configured says that the operator changed the configuration: Config's
	// MinSync and Keeper.StartTimeout.
	Configured struct {
		MinSync      int
		StartTimeout time.Duration
	}
)

// The events of a follower.
type (
	// Heard is a message from the leader of Roster.
	Heard struct {
		Roster *roster.Roster
		Commit uint64
		Deaths []Death // nil: as before
	}
	// Deaf says that this member could not listen to its leader, busy with its
	// own disk, or that the leader is not heard for want of a processor: that time says
	// nothing about the leader.
	Deaf struct{}
	// LeaderStopped says that the kernel shows the leader's process as stopped
	// by a signal or, after that, as running again.
	LeaderStopped struct {
		ID      roster.ID
		Stopped bool
	}
	// Received is a run of entries from the leader of Epoch, to follow Prev. Ref
	// is the caller's handle on them.
	Received struct {
		Epoch  uint64
		Prev   entry.Position
		Last   entry.Position
		Commit uint64
		Ref    any
	}
	// Installed says that the replica was replaced by the leader's at Last.
	Installed struct{ Last entry.Position }
	// Dismissed says that the leader told this member to leave.
	Dismissed struct{ Reason string }
	// Introduced names the leader, by another way than the leader's stream.
	Introduced struct{ Roster *roster.Roster }
)

// The events of a takeover.
type (
	// LockTaken says that this process holds cluster.lock. Succession is nil when there
	// is no succession.json; Unreadable says that there is one and that it is damaged.
	LockTaken struct {
		Succession *Succession
		Unreadable bool
		// AnyData says that some slot holds a write, or cannot be read. Looked at only
		// without a succession.json; a log with nothing but first entries of epochs, left by
		// a first start that was killed, does not count: nobody was ever answered.
		AnyData bool
	}
	// LockHeld says that another process holds it. Holder is the process that
	// took it, as far as that is known (its address is not), and HolderStopped
	// says that it is stopped by a signal.
	LockHeld struct {
		Succession    *Succession
		Holder        roster.ID
		HolderStopped bool
	}
	// Adopted says that the own log now begins with everything that the named
	// log (Adopt), the most complete one (AdoptBest) or the taken slot (TakeSlot) holds.
	Adopted struct {
		Last entry.Position
		Slot int // the slot that the process owns now
		// Seen is the greatest epoch in any log that was looked at for it. One that ends
		// elsewhere may hold the first entry of an epoch whose heir died before it was named.
		Seen uint64
		// Lost describes a loss that cannot be excluded; empty when none can be.
		Lost string
	}
	// AdoptFailed says that the step could not be done. Diverged: the own
	// log is no prefix of the named one.
	AdoptFailed struct {
		Reason   string
		Diverged bool
		// Fatal: nothing more can be tried.
		Fatal bool
	}
	// SuccessionWritten says that succession.json names this member, durably.
	SuccessionWritten struct{}
	// SuccessionFailed says that it could not be replaced (disk full, ...).
	SuccessionFailed struct{ Reason string }
)

// The events of a leader.
type (
	// Spawned says that the process for a slot exists and shook hands.
	Spawned struct{ Member roster.Member }
	// SpawnFailed says that it does not, or no longer.
	SpawnFailed struct {
		Slot   int
		ID     roster.ID // zero if no process came to be
		Reason string
		At     time.Time
		// SlotBusy: another process owns the slot.
		SlotBusy bool
	}
	// JoinRequested is an operator's process that asks for a slot.
	JoinRequested struct {
		Member roster.Member
		Ref    any
	}
	// Joined says that a follower opened its stream. CanResume: its Last is in
	// the leader's log and everything after is still there to be sent.
	Joined struct {
		Member    roster.Member
		Last      entry.Position
		CanResume bool
	}
	// Parted says that the stream of a follower ended; the process may live.
	Parted struct{ ID roster.ID }
	// Progress is a follower's acknowledgement or heartbeat: its log reaches to
	// Index, and it knows the leader's roster up to the version Known, as far as the
	// caller can tell.
	Progress struct {
		ID    roster.ID
		Index uint64
		Known uint64
	}
	// Toils says that a follower that is not heard uses the processor, or waits for
	// one: before it has joined it opens its copy, which takes the longer the more there
	// is in it, and later the host has more to do than it can.
	Toils struct{ ID roster.ID }
	// Overtaken says that what a follower needs next is gone from the log.
	Overtaken struct{ ID roster.ID }
	// HandoverRequested asks for another leader: To, or the heir if it is zero.
	HandoverRequested struct {
		To     roster.Address
		Reason string
		Ref    any
	}
	// ScaleRequested changes how many followers are kept: to Followers or, when
	// Relative, by that many.
	ScaleRequested struct {
		Followers int
		Relative  bool
		Ref       any
	}
	// RemoveRequested asks a follower to leave. It is replaced if too few are left.
	RemoveRequested struct {
		Address roster.Address
		Ref     any
	}
	// UpgradeRequested asks for all processes to be replaced by another build, whose
	// followers may take so long until they are in sync.
	UpgradeRequested struct {
		Build    string
		Patience time.Duration
		Ref      any
	}
	// DefragmentRequested asks for the databases of all members to be rewritten.
	DefragmentRequested struct{ Ref any }
	// Defragmented says that a follower has rewritten its database, or why not.
	Defragmented struct {
		ID    roster.ID
		Error string
	}
	// ReplicaDiffers says that the keys of a member are not what they must be. The
	// leader's own ID is possible: then its followers agree with each other.
	ReplicaDiffers struct {
		ID     roster.ID
		Detail string
	}
	// ServingStopped says that clients are served no longer and every write
	// taken from them is answered.
	ServingStopped struct{}
)

func (Boot) event()                {}
func (Tick) event()                {}
func (Died) event()                {}
func (Appended) event()            {}
func (Synced) event()              {}
func (StopRequested) event()       {}
func (Configured) event()          {}
func (Heard) event()               {}
func (Deaf) event()                {}
func (LeaderStopped) event()       {}
func (Received) event()            {}
func (Installed) event()           {}
func (Dismissed) event()           {}
func (Introduced) event()          {}
func (LockTaken) event()           {}
func (LockHeld) event()            {}
func (Adopted) event()             {}
func (AdoptFailed) event()         {}
func (SuccessionWritten) event()   {}
func (SuccessionFailed) event()    {}
func (Spawned) event()             {}
func (SpawnFailed) event()         {}
func (JoinRequested) event()       {}
func (Joined) event()              {}
func (Parted) event()              {}
func (Progress) event()            {}
func (Overtaken) event()           {}
func (Toils) event()               {}
func (HandoverRequested) event()   {}
func (ScaleRequested) event()      {}
func (RemoveRequested) event()     {}
func (DefragmentRequested) event() {}
func (Defragmented) event()        {}
func (ReplicaDiffers) event()      {}
func (UpgradeRequested) event()    {}
func (ServingStopped) event()      {}
