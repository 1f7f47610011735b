package sim

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Fault is a kind of fault.
type Fault uint8

// The kinds of faults.
const (
	KilledAnywhere     Fault = iota // SIGKILL out of the blue, also between two effects
	KilledInTakeover                // between taking the lock and leading
	KilledInSpawn                   // a starting process, or who starts it
	KilledInSnapshot                // the sender of a database, or its receiver
	KilledInWrite                   // a write to the log is left half done
	KilledTogether                  // several at once
	KilledAll                       // everything at once
	StoppedInTakeover               // SIGSTOP between taking the lock and leading, and SIGCONT later or never
	Stopped                         // SIGSTOP, and SIGCONT later
	StoppedForGood                  // SIGSTOP
	StreamCut                       // a connection breaks, both its ends live
	MessageLate                     // a message takes up to a heartbeat timeout
	ProcessStarved                  // the scheduler leaves a process aside
	FsyncSlow                       // the disk takes its time
	FsyncFailed                     // the process has to end
	DiskFull                        // for a while, for everybody
	AppendRefused                   // a batch of writes met a full disk
	SuccessionRefused               // succession.json could not be replaced, or nobody knows whether it was
	PowerLost                       // all dead, and what was not synced may be gone
	SpawnFailed                     // no process
	SpawnHung                       // a process that takes long to come up
	LockLingered                    // cluster.lock outlives its owner for a moment
	CopyCut                         // a follower finds the end of its log gone at its start
	CopyCorrupt                     // a follower finds its copy unreadable at its start
	CopyHidden                      // one of the others neither, just then
	NamedDamaged                    // the slot that succession.json names cannot be read
	NamedCut                        // its log has lost its end when it is opened at a cold start
	CopyDiffers                     // a member's database has a wrong key, and is found out
	LeaderKilledInStop              // in the middle of an orderly end
	// What operators ask for in the middle of all that:
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
	"disk full", "append refused", "succession.json refused", "power lost", "spawn failed", "spawn hung", "lock lingered",
	"log of a follower cut", "copy of a follower corrupt", "copy unreadable for once", "named slot damaged", "named log cut", "copy differs", "leader killed in a stop",
	"hand-over asked", "scaled", "member removed", "defragmentation asked", "upgrade asked",
}

func (f Fault) String() string { return faultNames[f] }

// Count is how often something happened, and in how many runs it did.
type Count struct {
	Times int `json:"times"`
	Runs  int `json:"runs"`
}

// Stats counts what one run, or several, went through.
type Stats struct {
	Runs, Steps, Leads, Acknowledged int
	ColdStarts, Spawns, Snapshots    int
	Losses, KilledByCore             int // runs in which a possible loss was reported; processes ended by members
	Simulated                        time.Duration
	LongestRecovery                  time.Duration // of a cluster without faults, until it was whole
	MostStepsToRecover               int
	Faults                           [faultKinds]Count
}

// Add sums up.
func (s *Stats) Add(o Stats) {
	s.Runs += o.Runs
	s.Steps += o.Steps
	s.Leads += o.Leads
	s.Acknowledged += o.Acknowledged
	s.ColdStarts += o.ColdStarts
	s.Spawns += o.Spawns
	s.Snapshots += o.Snapshots
	s.Losses += o.Losses
	s.KilledByCore += o.KilledByCore
	s.Simulated += o.Simulated
	s.LongestRecovery = max(s.LongestRecovery, o.LongestRecovery)
	s.MostStepsToRecover = max(s.MostStepsToRecover, o.MostStepsToRecover)
	for k := range s.Faults {
		s.Faults[k].Times += o.Faults[k].Times
		s.Faults[k].Runs += o.Faults[k].Runs
	}
}

// seal ends the count of one run.
func (s *Stats) seal() {
	s.Runs = 1
	s.Losses = min(s.Losses, 1)
	for k := range s.Faults {
		s.Faults[k].Runs = min(s.Faults[k].Times, 1)
	}
}

func (s Stats) String() string {
	return fmt.Sprintf("%d runs, %d steps in %s of simulated time: %d takeovers, %d writes acknowledged, %d cold starts, %d spawns, %d snapshots, "+
		"%d processes ended by members, %d runs with a reported loss; without faults whole within %s and %d steps",
		s.Runs, s.Steps, s.Simulated.Round(time.Second), s.Leads, s.Acknowledged, s.ColdStarts, s.Spawns, s.Snapshots,
		s.KilledByCore, s.Losses, s.LongestRecovery.Round(time.Millisecond), s.MostStepsToRecover)
}

// FaultTable lists the faults, a line for each.
func (s Stats) FaultTable() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-28s %10s %8s\n", "fault", "times", "runs")
	for k, c := range s.Faults {
		fmt.Fprintf(&b, "%-28s %10d %8d\n", Fault(k), c.Times, c.Runs)
	}
	return b.String()
}

// MarshalJSON names the faults.
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
		LongestRecovery    float64          `json:"longest_recovery_seconds"`
		MostStepsToRecover int              `json:"most_steps_to_recover"`
		Faults             map[string]Count `json:"faults"`
	}{s.Runs, s.Steps, s.Simulated.Seconds(), s.Leads, s.Acknowledged, s.ColdStarts, s.Spawns, s.Snapshots, s.KilledByCore,
		s.Losses, s.LongestRecovery.Seconds(), s.MostStepsToRecover, faults})
}

func (w *world) count(f Fault) { w.stats.Faults[f].Times++ }
