package ps

import (
	"encoding/json"
	"fmt"
	"time"
)

// Schema is the version of the JSON form.
const Schema = 1

// Report describes all services at one moment.
type Report struct {
	Schema int `json:"schema"`
	// At is the time of the description, by the leader's clock.
	At       time.Time `json:"at"`
	Services []Service `json:"services"`
	// Ended are the last instances of services that were removed because they had ended ("run
	// --rm"), the oldest first.
	Ended []Ended `json:"ended,omitempty"`
}

// Ended is an instance of a service that was removed because it had ended.
type Ended struct {
	ID string `json:"id"` // note/1
	// At is when the service was removed, by the leader's clock.
	At time.Time `json:"at"`
	// State is done or failed.
	State    string `json:"state"`
	Reason   string `json:"reason,omitempty"`
	LastExit *Exit  `json:"last_exit"` // null if no process of it has ended
}

// Service is one service.
type Service struct {
	Name string `json:"name"`
	// Desired is what is wanted: running, stopped, or scheduled.
	Desired string `json:"desired"`
	// Origin is where the service comes from: the file and line of its block, or "run".
	Origin string `json:"origin"`
	// Schedule is the cron expression of a task, and NextRun is when it is due.
	Schedule string     `json:"schedule,omitempty"`
	NextRun  *time.Time `json:"next_run,omitempty"`
	Rolling  bool       `json:"rolling"` // a rolling restart is under way
	// RollingError says why the last rolling restart ended early.
	RollingError string `json:"rolling_error,omitempty"`
	// Elsewhere says why it does not run on this host, in a cluster of several. Fence is the fencing number
	// of a service that runs on one host at a time, if it is this one.
	Elsewhere string     `json:"elsewhere,omitempty"`
	Fence     int64      `json:"fence,omitempty"`
	Instances []Instance `json:"instances"`
}

// The values of Service.Desired.
const (
	DesiredRunning   = "running"
	DesiredStopped   = "stopped"
	DesiredScheduled = "scheduled"
)

// Instance is one instance of a service.
type Instance struct {
	ID    string `json:"id"` // web/1
	PID   int    `json:"pid"`
	State string `json:"state"`
	// Reason says why it does not run, or what it waits for.
	Reason   string `json:"reason,omitempty"`
	Ready    bool   `json:"ready"`
	UptimeMS int64  `json:"uptime_ms"`
	Restarts int    `json:"restarts"`
	// Skipped is how often a scheduled run was left out because the one before had not ended.
	Skipped  int    `json:"skipped,omitempty"`
	LastExit *Exit  `json:"last_exit"`        // null if it has never ended
	Status   string `json:"status,omitempty"` // what the program said last (STATUS=)
	// RSSBytes, CPU and CPUSeconds are about the whole process tree. Memory that processes share
	// counts for each.
	RSSBytes uint64  `json:"rss_bytes"`
	CPU      float64 `json:"cpu_percent"` // of one core, since the report before
	// CPUSeconds is the processor time that the tree has used since the main process started.
	CPUSeconds float64  `json:"cpu_seconds"`
	Log        string   `json:"log"` // the path of its output
	Limits     []string `json:"limits_not_applied,omitempty"`
}

// Exit is how a process ended.
type Exit struct {
	Code   int       `json:"code"`   // -1 if a signal ended it, or if it is not known
	Signal string    `json:"signal"` // empty if it exited by itself
	At     time.Time `json:"at"`
	Reason string    `json:"reason"` // in words
}

// Encode returns the JSON form.
func (r *Report) Encode() ([]byte, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode services: %w", err)
	}
	return b, nil
}

// Decode reads the JSON form.
func Decode(b []byte) (*Report, error) {
	var r Report
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("decode services: %w", err)
	}
	if r.Schema != Schema {
		return nil, fmt.Errorf("decode services: schema %d, want %d: use the dynast binary that the cluster runs", r.Schema, Schema)
	}
	return &r, nil
}

// Find returns the instances that a name means: a service, or one instance of it.
func (r *Report) Find(name string) []Instance {
	var out []Instance
	for _, s := range r.Services {
		for _, i := range s.Instances {
			if s.Name == name || i.ID == name {
				out = append(out, i)
			}
		}
	}
	return out
}
