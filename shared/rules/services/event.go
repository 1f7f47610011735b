package services

import "time"

// Event is something that happened. See Core.Step.
type Event interface{ event() }

type (
	// Lead is the first event. This process is the leader from now on.
	Lead struct {
		Specs  []Spec
		Wishes map[string]Wish
		Found  []Found
		// Fresh means that the services start anew: the host has booted since, or dynast was
		// stopped in an orderly way. What was finished or had failed runs again.
		Fresh bool
		// Stopping means that the leader before had begun to stop all services.
		Stopping bool
	}
	// Configured replaces the specs. An instance whose fingerprint differs is restarted.
	Configured struct{ Specs []Spec }
	// Tick tells the time. It is due at Wake.
	Tick struct{}

	// Started reports that the process of a Start exists.
	Started struct {
		ID      ID
		Run     uint64
		Process Process
	}
	// StartFailed reports that a Start left no process.
	StartFailed struct {
		ID     ID
		Run    uint64
		Reason string
	}
	// Exited reports that the main process is dead.
	Exited struct {
		ID   ID
		Run  uint64
		Exit Exit
	}
	// Cleared reports that no process of the instance is left.
	Cleared struct {
		ID  ID
		Run uint64
	}
	// Checked is the result of one attempt of a check.
	Checked struct {
		ID     ID
		Run    uint64
		Alive  bool // of the alive check, otherwise of the ready check
		OK     bool
		Reason string
	}
	// Notified is a message of the program to its supervisor.
	Notified struct {
		ID  ID
		Run uint64
		// Ready, Stopping, Reloading and Ping are READY=1, STOPPING=1, RELOADING=1 and
		// WATCHDOG=1. Hung is WATCHDOG=trigger.
		Ready, Stopping, Reloading, Ping, Hung bool
		// Extend is EXTEND_TIMEOUT_USEC.
		Extend time.Duration
		// Main is a new main process (MAINPID), or zero.
		Main Process
	}

	// Due says that the schedule of a service has come to a time.
	Due struct{ Service string }

	// StartWanted, StopWanted and RestartWanted are an operator's commands. Instance 0 means all
	// instances.
	StartWanted struct {
		Service  string
		Instance int
	}
	StopWanted struct {
		Service  string
		Instance int
	}
	RestartWanted struct {
		Service  string
		Instance int
		// Rolling starts an additional instance first, and stops an old one only when all others
		// are ready.
		Rolling bool
	}
	// Batch are events that happen at the same moment, for example a command about several
	// services.
	Batch struct{ Events []Event }
	// StopAll stops all services, those that need others first. They stay stopped until a Lead
	// that is Fresh.
	StopAll struct{}
)

func (Lead) event()          {}
func (Configured) event()    {}
func (Tick) event()          {}
func (Started) event()       {}
func (StartFailed) event()   {}
func (Exited) event()        {}
func (Cleared) event()       {}
func (Checked) event()       {}
func (Notified) event()      {}
func (Due) event()           {}
func (StartWanted) event()   {}
func (StopWanted) event()    {}
func (RestartWanted) event() {}
func (Batch) event()         {}
func (StopAll) event()       {}

// Found is what a new leader found of an instance: its record, and what is left of it.
type Found struct {
	Record Record
	// Spec is what the process was started with, or nil if that is unknown. It says in which order
	// an instance ends whose service is not configured any more.
	Spec *Spec
	// Main is the main process if it lives. It may differ from the record: a record that was
	// saved before a start has none.
	Main Process
	// Others means that other processes of the instance live, or may live.
	Others bool
	// Exit is how the main process ended, if it is dead and that is known.
	Exit Exit
}
