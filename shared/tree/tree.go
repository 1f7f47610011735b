package tree

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/events"
	"github.com/dynast-io/dynast/shared/meter"
	"github.com/dynast-io/dynast/shared/proc"
	"github.com/dynast-io/dynast/shared/roster"
)

// Schema is the version of the JSON form.
const Schema = 1

// Tree is the cluster at one moment, as its leader saw it.
type Tree struct {
	Schema   int    `json:"schema"`
	Epoch    uint64 `json:"epoch"`
	Leader   string `json:"leader"`
	Heir     string `json:"heir"` // empty when nobody is in sync
	Client   string `json:"client"`
	Degraded bool   `json:"degraded"`
	// Followers is how many the leader keeps, besides those started by hand.
	Followers int      `json:"followers"`
	Members   []Member `json:"members"`
	Deaths    []Death  `json:"deaths"`

	// At is when this was so, by the leader's clock.
	At time.Time `json:"at"`
	// Committed is the last index that is acknowledged, Applied the last that is
	// in the database.
	Committed uint64 `json:"committed"`
	Applied   uint64 `json:"applied"`
	// Pending are the writes that wait for their acknowledgement.
	Pending int `json:"pending"`
	// Restarts and Takeovers are counted since the data directory was made.
	Restarts  uint64 `json:"restarts"`
	Takeovers uint64 `json:"takeovers"`
	// LogDirectory has the log files of the members; empty: there are none.
	LogDirectory string `json:"log_directory"`
	// Load is what clients ask for, counted since this leader leads.
	Load meter.Load `json:"load"`
}

// Member is one process.
type Member struct {
	Address string `json:"address"`
	PID     int    `json:"pid"`
	PPID    int    `json:"ppid"`
	Role    string `json:"role"`  // leader, follower
	State   string `json:"state"` // serving, starting, in_sync, lagging, leaving
	Slot    int    `json:"slot"`
	Index   uint64 `json:"index"` // how far its log reaches
	Lag     uint64 `json:"lag"`   // entries behind the leader's log
	// HeartbeatAgeMS is the time since the leader last heard it; 0 for the leader.
	HeartbeatAgeMS int64  `json:"heartbeat_age_ms"`
	UptimeMS       int64  `json:"uptime_ms"`
	RSSBytes       uint64 `json:"rss_bytes"`
	Version        string `json:"version"`
	// CPUSeconds is what the process has used since its start, CPUPercent what it
	// uses of one core, over the last seconds.
	CPUSeconds float64 `json:"cpu_seconds"`
	CPUPercent float64 `json:"cpu_percent"`
	// Restarts is how often its slot needed another process since the last "up".
	Restarts uint64 `json:"restarts"`
}

// Death is a process that is no more.
type Death struct {
	Address    string    `json:"address"`
	PID        int       `json:"pid"`
	Reason     string    `json:"reason"`
	At         time.Time `json:"at"`
	ReplacedBy string    `json:"replaced_by"` // empty: not yet
}

// Facts is what a leader knows beside its core. All but Totals may be left out.
type Facts struct {
	Applied      uint64
	Pending      int
	LogDirectory string
	Totals       *events.Totals
	Load         meter.Load
	// CPUPercent is how much of a core a process uses, of which this is the usage now.
	CPUPercent func(pid int, now proc.Usage) float64
}

// FromView describes what a leader's core knows, with what the operating
// system knows of the same processes.
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
	// A process that ended this instant has no usage; what is known is told.
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

// Encode returns the JSON form.
func (t *Tree) Encode() ([]byte, error) { return json.MarshalIndent(t, "", "  ") }

// Decode reads what Encode wrote.
func Decode(b []byte) (*Tree, error) {
	var t Tree
	if err := json.Unmarshal(b, &t); err != nil {
		return nil, fmt.Errorf("decode the tree: %w", err)
	}
	if t.Schema != Schema {
		return nil, fmt.Errorf("the leader describes the tree in schema %d, this program knows %d: use the same version", t.Schema, Schema)
	}
	return &t, nil
}
