package sim

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Fault is a kind of fault.
type Fault uint8

// Kinds of faults.
const (
	KilledAnywhere      Fault = iota // SIGKILL at any moment, also between two effects
	KilledInTakeover                 // between taking the lock and leading
	KilledInSpawn                    // a starting process, or the process that starts it
	KilledInSnapshot                 // the sender of a snapshot, or its receiver
	KilledInWrite                    // a write to the log is only partly done
	KilledTogether                   // several at once
	KilledAll                        // every process at once
	StoppedInTakeover                // SIGSTOP between taking the lock and leading; SIGCONT later or never
	Stopped                          // SIGSTOP, then SIGCONT
	StoppedForGood                   // SIGSTOP
	StreamCut                        // a connection breaks while both ends live
	MessageLate                      // a message takes up to a heartbeat timeout
	ProcessStarved                   // the scheduler does not run a process for a while
	FsyncSlow                        // an fsync takes long
	FsyncFailed                      // the process must exit
	DiskFull                         // for a while, for all processes
	AppendRefused                    // a batch of writes met a full disk
	SuccessionRefused                // succession.json or claims.json could not be replaced, or the outcome is unknown
	PowerLost                        // all processes die, and unsynced data may be gone
	SpawnFailed                      // the process does not start
	SpawnHung                        // the process takes long to start
	LockLingered                     // cluster.lock is released a moment after its owner's death
	CopyCut                          // a follower finds that its log lost its end, at its start
	CopyCorrupt                      // a follower finds its copy unreadable, at its start
	CopyHidden                       // another slot is unreadable for once
	NamedDamaged                     // the slot that succession.json names cannot be read
	NamedCut                         // the named log has lost its end when it is opened at a cold start
	CopyDiffers                      // a member's database has a wrong key, which a comparison finds
	LeaderKilledInStop               // during an orderly stop
	PowerLostInTakeover              // between taking the lock and leading
	HostSuspended                    // no process runs for a while, and all clocks jump
	SuccessionDamaged                // succession.json is unreadable
	ClaimsDamaged                    // claims.json is unreadable
	OtherDamaged                     // another slot is damaged together with the named one
	OtherBuildJoined                 // an operator starts a follower of another build
	// Requests of operators during the faults:
	HandoverAsked
	Scaled
	MemberRemoved
	DefragmentAsked
	UpgradeAsked
	faultKinds
)

var faultNames = [faultKinds]string{
	"killed", "killed in a takeover", "killed in a spawn", "killed in a snapshot", "killed in a write", "several killed at once", "all killed",
	"stopped in a takeover", "stopped and continued", "stopped for good", "stream cut", "message late", "process starved", "fsync slow", "fsync failed",
	"disk full", "append refused", "succession.json or claims.json refused", "power lost", "spawn failed", "spawn hung", "lock lingered",
	"log of a follower cut", "copy of a follower corrupt", "copy unreadable for once", "named slot damaged", "named log cut", "copy differs", "leader killed in a stop",
	"power lost in a takeover", "host suspended", "succession.json damaged", "claims.json damaged", "other slot damaged too", "other build joined",
	"hand-over asked", "scaled", "member removed", "defragmentation asked", "upgrade asked",
}

func (f Fault) String() string { return faultNames[f] }

// Count is the number of times that something happened, and the number of runs in which it did.
type Count struct {
	Times int `json:"times"`
	Runs  int `json:"runs"`
}

// Stats counts what happened in one run or in several.
type Stats struct {
	Runs, Steps, Leads, Acknowledged int
	ColdStarts, Spawns, Snapshots    int
	Violations                       int // runs that broke a rule
	Losses, KilledByCore             int // runs with a report of a possible loss; processes that members killed
	Simulated                        time.Duration
	LongestRecovery                  time.Duration // the longest time from the end of the faults until a cluster was healthy
	MostStepsToRecover               int
	Faults                           [faultKinds]Count
}

// Add adds the counts of other runs.
func (s *Stats) Add(o Stats) {
	s.Runs += o.Runs
	s.Steps += o.Steps
	s.Leads += o.Leads
	s.Acknowledged += o.Acknowledged
	s.ColdStarts += o.ColdStarts
	s.Spawns += o.Spawns
	s.Snapshots += o.Snapshots
	s.Losses += o.Losses
	s.Violations += o.Violations
	s.KilledByCore += o.KilledByCore
	s.Simulated += o.Simulated
	s.LongestRecovery = max(s.LongestRecovery, o.LongestRecovery)
	s.MostStepsToRecover = max(s.MostStepsToRecover, o.MostStepsToRecover)
	for k := range s.Faults {
		s.Faults[k].Times += o.Faults[k].Times
		s.Faults[k].Runs += o.Faults[k].Runs
	}
}

// seal completes the counts of one run.
func (s *Stats) seal() {
	s.Runs = 1
	s.Losses = min(s.Losses, 1)
	for k := range s.Faults {
		s.Faults[k].Runs = min(s.Faults[k].Times, 1)
	}
}

func (s Stats) String() string {
	return fmt.Sprintf("%d runs, %d steps in %s of simulated time: %d takeovers, %d writes acknowledged, %d cold starts, %d spawns, %d snapshots, "+
		"%d processes killed by members, %d runs with a reported loss; longest recovery after the faults: %s, %d steps",
		s.Runs, s.Steps, s.Simulated.Round(time.Second), s.Leads, s.Acknowledged, s.ColdStarts, s.Spawns, s.Snapshots,
		s.KilledByCore, s.Losses, s.LongestRecovery.Round(time.Millisecond), s.MostStepsToRecover)
}

// FaultTable returns a table with a line for each fault.
func (s Stats) FaultTable() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-28s %10s %8s\n", "fault", "times", "runs")
	for k, c := range s.Faults {
		fmt.Fprintf(&b, "%-28s %10d %8d\n", Fault(k), c.Times, c.Runs)
	}
	return b.String()
}

// MarshalJSON writes the counts of faults by name.
func (s Stats) MarshalJSON() ([]byte, error) {
	faults := make(map[string]Count, len(s.Faults))
	for k, c := range s.Faults {
		faults[strings.ReplaceAll(Fault(k).String(), " ", "_")] = c
	}
	return json.Marshal(struct {
		Runs               int              `json:"runs"`
		Steps              int              `json:"steps"`
		SimulatedSeconds   float64          `json:"simulated_seconds"`
		Takeovers          int              `json:"takeovers"`
		Acknowledged       int              `json:"acknowledged_writes"`
		ColdStarts         int              `json:"cold_starts"`
		Spawns             int              `json:"spawns"`
		Snapshots          int              `json:"snapshots"`
		KilledByCore       int              `json:"ended_by_members"`
		Losses             int              `json:"runs_with_reported_loss"`
		Violations         int              `json:"runs_that_broke_a_rule"`
		LongestRecovery    float64          `json:"longest_recovery_seconds"`
		MostStepsToRecover int              `json:"most_steps_to_recover"`
		Faults             map[string]Count `json:"faults"`
	}{s.Runs, s.Steps, s.Simulated.Seconds(), s.Leads, s.Acknowledged, s.ColdStarts, s.Spawns, s.Snapshots, s.KilledByCore,
		s.Losses, s.Violations, s.LongestRecovery.Seconds(), s.MostStepsToRecover, faults})
}

func (w *world) count(f Fault) { w.stats.Faults[f].Times++ }
