package tree

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/observe/events"
	"github.com/dynast-io/dynast/shared/observe/meter"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

// Schema is the version of the JSON form.
const Schema = 1

// Tree is the cluster at one moment, as its leader sees it.
type Tree struct {
	Schema   int    `json:"schema"`
	Epoch    uint64 `json:"epoch"`
	Leader   string `json:"leader"`
	Heir     string `json:"heir"` // empty if no follower is in sync
	Client   string `json:"client"`
	Degraded bool   `json:"degraded"`
	// Followers is how many followers the leader keeps, without those started by hand.
	Followers int      `json:"followers"`
	Members   []Member `json:"members"`
	Deaths    []Death  `json:"deaths"`

	// At is the time of the description, by the leader's clock.
	At time.Time `json:"at"`
	// Committed is the last acknowledged index. Applied is the last index in the database.
	Committed uint64 `json:"committed"`
	Applied   uint64 `json:"applied"`
	// Pending is the number of writes that wait for their acknowledgement.
	Pending int `json:"pending"`
	// Restarts and Takeovers are counted since the data directory was made.
	Restarts  uint64 `json:"restarts"`
	Takeovers uint64 `json:"takeovers"`
	// LogDirectory is the directory of the members' log files. It is empty if there are none.
	LogDirectory string `json:"log_directory"`
	// Load is the load by clients since this leader began to lead.
	Load meter.Load `json:"load"`
	// Store describes the store. It is nil if the leader is older than this field, or if the engine
	// of several hosts does not answer in time.
	Store *Store `json:"store,omitempty"`
}

// Store is what a leader knows about the key-value store. With several hosts, it is the store of this
// host.
type Store struct {
	Keys     int64 `json:"keys"` // without deleted keys
	Revision int64 `json:"revision"`
	// UsedBytes is the part of the database that is in use. It counts against the quota.
	UsedBytes int64 `json:"used_bytes"`
	// FileBytes is the size of the database file.
	FileBytes int64 `json:"file_bytes"`
	// QuotaBytes is the number of bytes in use at which writes are refused. A negative number means
	// no limit.
	QuotaBytes int64 `json:"quota_bytes"`
	// DiskFreeBytes is the free space on the disk of the data directory.
	DiskFreeBytes uint64 `json:"disk_free_bytes"`
	// Alarms are the active alarms, for example NOSPACE.
	Alarms []string `json:"alarms"`
	// Connections is the number of connections of clients.
	Connections int `json:"connections"`
	Watchers    int `json:"watchers"`
}

// Member is one process.
type Member struct {
	Address string `json:"address"`
	PID     int    `json:"pid"`
	PPID    int    `json:"ppid"`
	Role    string `json:"role"`  // leader, follower
	State   string `json:"state"` // serving, starting, in_sync, lagging, leaving
	Slot    int    `json:"slot"`
	Index   uint64 `json:"index"` // the index at which its log ends
	Lag     uint64 `json:"lag"`   // entries behind the leader's log
	// HeartbeatAgeMS is the time since the leader last got its heartbeat; 0 for the leader.
	HeartbeatAgeMS int64  `json:"heartbeat_age_ms"`
	UptimeMS       int64  `json:"uptime_ms"`
	RSSBytes       uint64 `json:"rss_bytes"`
	Version        string `json:"version"`
	// CPUSeconds is the CPU time since the start of the process. CPUPercent is the usage over
	// the last seconds, in percent of one core.
	CPUSeconds float64 `json:"cpu_seconds"`
	CPUPercent float64 `json:"cpu_percent"`
	// Restarts is how often its slot needed a new process since the last "up".
	Restarts uint64 `json:"restarts"`
}

// Death is a process that has ended.
type Death struct {
	Address    string    `json:"address"`
	PID        int       `json:"pid"`
	Reason     string    `json:"reason"`
	At         time.Time `json:"at"`
	ReplacedBy string    `json:"replaced_by"` // empty if it is not replaced yet
}

// Facts is what a leader knows in addition to its core. All except Totals are optional.
type Facts struct {
	Applied      uint64
	Pending      int
	LogDirectory string
	Totals       *events.Totals
	Load         meter.Load
	// CPUPercent returns a process's usage in percent of one core. now is its current usage.
	CPUPercent func(pid int, now proc.Usage) float64
}

// FromView combines what a leader's core knows with what the operating system knows about the
// same processes.
func FromView(v core.View, self roster.Address, f Facts) *Tree {
	r := v.Roster
	t := &Tree{
		Schema: Schema, Epoch: r.Epoch, Client: r.Client, Degraded: v.Degraded, Followers: r.Followers,
		Members: []Member{}, Deaths: []Death{},
		At: time.Now().UTC(), Committed: v.Committed, Applied: f.Applied, Pending: f.Pending,
		Restarts: f.Totals.AllRestarts(), Takeovers: f.Totals.AllTakeovers(), LogDirectory: f.LogDirectory, Load: f.Load,
	}
	if r.Leader.IsValid() {
		t.Leader = r.Leader.String()
	}
	if heir, ok := r.Heir(); ok {
		t.Heir = heir.String()
	}
	for _, m := range r.Members {
		t.Members = append(t.Members, describe(v, m, self, f))
	}
	for _, d := range v.Deaths {
		out := Death{Address: d.ID.Address.String(), PID: d.ID.PID, Reason: d.Reason, At: d.At.UTC()}
		if d.ReplacedBy.IsValid() {
			out.ReplacedBy = d.ReplacedBy.String()
		}
		t.Deaths = append(t.Deaths, out)
	}
	return t
}

func describe(v core.View, m roster.Member, self roster.Address, f Facts) Member {
	out := Member{
		Address: m.Address.String(), PID: m.PID, Role: m.Role.String(), State: m.State.String(),
		Slot: m.Slot, Version: m.Version, Index: v.Appended.Index,
		Restarts: f.Totals.RestartsIn(m.Slot),
	}
	if p, ok := v.Followers[m.Address]; ok && m.Address != self {
		out.Index = p.Match
		out.Lag = v.Appended.Index - min(p.Match, v.Appended.Index)
		out.HeartbeatAgeMS = p.HeartbeatAge.Milliseconds()
	}
	// If the process has just ended, there is no usage, and the rest is reported.
	if u, err := proc.ReadUsage(m.PID); err == nil {
		out.PPID, out.RSSBytes = u.PPID, u.RSSBytes
		out.UptimeMS = time.Since(u.StartedAt).Milliseconds()
		out.CPUSeconds = u.CPU.Seconds()
		if f.CPUPercent != nil {
			out.CPUPercent = f.CPUPercent(m.PID, u)
		}
	}
	return out
}

// MemberAt is the member with an address.
func (t *Tree) MemberAt(address string) (Member, bool) {
	for _, m := range t.Members {
		if m.Address == address {
			return m, true
		}
	}
	return Member{}, false
}

// LeaderMember is the member that leads; its PID is 0 if none does.
func (t *Tree) LeaderMember() Member {
	m, _ := t.MemberAt(t.Leader)
	return m
}

// FollowerMembers are all members but the leader.
func (t *Tree) FollowerMembers() []Member {
	var out []Member
	for _, m := range t.Members {
		if m.Address != t.Leader {
			out = append(out, m)
		}
	}
	return out
}

// InSync counts the followers that are in sync.
func (t *Tree) InSync() int {
	n := 0
	for _, m := range t.Members {
		if m.State == "in_sync" {
			n++
		}
	}
	return n
}

// Encode returns the JSON form.
func (t *Tree) Encode() ([]byte, error) { return json.MarshalIndent(t, "", "  ") }

// Decode reads what Encode wrote.
func Decode(b []byte) (*Tree, error) {
	var t Tree
	if err := json.Unmarshal(b, &t); err != nil {
		return nil, fmt.Errorf("decode the tree: %w", err)
	}
	if t.Schema != Schema {
		return nil, fmt.Errorf("the leader's tree has schema %d, but this program knows schema %d: use the leader's version of the program", t.Schema, Schema)
	}
	return &t, nil
}
