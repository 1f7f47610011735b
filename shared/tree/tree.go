package tree

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/dynast-io/dynast/shared/core"
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
}

// Death is a process that is no more.
type Death struct {
	Address    string    `json:"address"`
	PID        int       `json:"pid"`
	Reason     string    `json:"reason"`
	At         time.Time `json:"at"`
	ReplacedBy string    `json:"replaced_by"` // empty: not yet
}

// FromView describes what a leader's core knows, with what the operating
// system knows of the same processes.
func FromView(v core.View, self roster.Address) *Tree {
	r := v.Roster
	t := &Tree{
		Schema: Schema, Epoch: r.Epoch, Client: r.Client, Degraded: v.Degraded, Followers: r.Followers,
		Members: []Member{}, Deaths: []Death{},
	}
	if r.Leader.IsValid() {
		t.Leader = r.Leader.String()
	}
	if heir, ok := r.Heir(); ok {
		t.Heir = heir.String()
	}
	for _, m := range r.Members {
		t.Members = append(t.Members, describe(v, m, self))
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

func describe(v core.View, m roster.Member, self roster.Address) Member {
	out := Member{
		Address: m.Address.String(), PID: m.PID, Role: m.Role.String(), State: m.State.String(),
		Slot: m.Slot, Version: m.Version, Index: v.Appended.Index,
	}
	if f, ok := v.Followers[m.Address]; ok && m.Address != self {
		out.Index = f.Match
		out.Lag = v.Appended.Index - f.Match
		out.HeartbeatAgeMS = f.HeartbeatAge.Milliseconds()
	}
	// A process that ended this instant has no usage; what is known is told.
	if u, err := proc.ReadUsage(m.PID); err == nil {
		out.PPID, out.RSSBytes = u.PPID, u.RSSBytes
		out.UptimeMS = time.Since(u.StartedAt).Milliseconds()
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
