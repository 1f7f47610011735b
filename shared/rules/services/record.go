package services

import (
	"fmt"
	"time"
)

// ID names an instance, for example web/1. N counts from 1.
type ID struct {
	Service string
	N       int
}

func (id ID) String() string { return fmt.Sprintf("%s/%d", id.Service, id.N) }

// Process names a process for good, as proc.Identity does. The zero value names none.
type Process struct {
	PID       int
	StartTime uint64
}

// Exit is how a process ended. If Known is false, nobody could find out, and it counts as a
// failure.
type Exit struct {
	Known  bool
	Code   int
	Signal string // SIGKILL, for example; empty if the process exited by itself
}

// OK reports whether a program has succeeded.
func (e Exit) OK() bool { return e.Known && e.Code == 0 && e.Signal == "" }

// Policy says which exits are followed by another start.
type Policy uint8

// The policies.
const (
	Always Policy = iota
	OnFailure
	Never
)

// Spec is what the rules know about a service.
type Spec struct {
	Name         string
	Instances    int
	Restart      Policy
	Needs, After []string
	// ReadyCheck means that an instance is ready only when a check or a notification says so.
	ReadyCheck bool
	// AliveFailures is how many failed attempts in a row of the alive check end an instance. 0
	// means that there is no alive check.
	AliveFailures int
	// Watchdog is the longest time without a ping. 0 means that there is no watchdog.
	Watchdog    time.Duration
	StopTimeout time.Duration
	// HungTimeout is used in place of StopTimeout after a failure of the watchdog; 0 means
	// StopTimeout.
	HungTimeout time.Duration
	// BackoffFirst is the delay after the second failure in a short time. It doubles with each
	// further failure, up to BackoffMax. After Limit failures the instance is given up; 0 means
	// never.
	BackoffFirst, BackoffMax time.Duration
	Limit                    int
	// RollTimeout ends a rolling restart in which no instance becomes ready for this time. The time
	// that an instance needs to stop does not count. 0 means never.
	RollTimeout time.Duration
	// Scheduled means that an instance starts only when the service is Due.
	Scheduled bool
	// Fingerprint changes with everything that a running process cannot change.
	Fingerprint uint64
}

// Wish is what an operator changed about a service at run time.
type Wish struct {
	// Stopped stops all instances, StoppedInstances these.
	Stopped          bool
	StoppedInstances []int
	// Generation counts restarts. An instance that was started in an earlier generation is
	// restarted. Rolling means that this is done one instance at a time.
	Generation uint64
	Rolling    bool
	// RollBy is when a rolling restart ends, unless an instance becomes ready before. RollFailed says
	// why the last one ended before all instances were restarted.
	RollBy     time.Duration `json:",omitempty"`
	RollFailed string        `json:",omitempty"`
}

// Empty reports whether an operator changed nothing.
func (w Wish) Empty() bool {
	return !w.Stopped && len(w.StoppedInstances) == 0 && w.Generation == 0 && !w.Rolling && w.RollFailed == ""
}

// Phase is where an instance stands. See the package documentation.
type Phase uint8

// The phases.
const (
	Idle Phase = iota
	Starting
	Up
	Ending
	Clearing
)

// Outcome is how an instance ended that does not start again by itself.
type Outcome uint8

// The outcomes.
const (
	Unfinished Outcome = iota
	Succeeded
	Failed
)

// Why says why a process is ended.
type Why uint8

// The reasons for ending a process.
const (
	Wanted    Why = iota + 1 // an operator or the configuration stopped it
	Cycled                   // it is restarted
	Unhealthy                // it failed its alive check or its watchdog
	Itself                   // nobody ended it: the program said that it stops
)

// Record is the state of an instance. It is saved, so that later leaders can continue with it.
type Record struct {
	ID    ID
	Phase Phase
	// Run is the number of the last start, among all starts of all instances. It tells events
	// about an earlier process from those about the current one.
	Run         uint64
	Process     Process
	Fingerprint uint64 // of the current process
	Generation  uint64 // of the current process
	StartedAt   time.Duration
	Ready       bool
	// Reloading means that a program that was ready said RELOADING=1. It serves again when it says
	// READY=1.
	Reloading bool `json:",omitempty"`
	// Why says why the process is ended, in the phase Ending and after it. StopBy is when it is
	// killed.
	Why    Why
	StopBy time.Duration
	// Restarts counts starts after the first that no operator asked for.
	Restarts int
	// Failures counts failures. It halves with each failureHalfLife that a process runs.
	Failures float64
	// NotBefore is when the next start is due.
	NotBefore time.Duration
	Outcome   Outcome
	// Armed means that a scheduled instance is due to run or running.
	Armed   bool
	Skipped int // how often a schedule came to a time while the instance was running
	// LastExit is the last exit, at ExitedAt. Exits counts them.
	LastExit Exit
	ExitedAt time.Duration
	Exits    int
	// Reason says what happened last that kept the instance from running.
	Reason string
	// AliveMisses counts failed attempts of the alive check in a row. PingBy is when the
	// watchdog ends the process.
	AliveMisses int
	PingBy      time.Duration
}
