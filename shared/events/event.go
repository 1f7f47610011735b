package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dynast-io/dynast/shared/core"
)

// Event is something that happened, as one line of the file.
type Event struct {
	At    time.Time `json:"at"`
	Epoch uint64    `json:"epoch"`
	// Kind is what happened: a core.Kind's name, or one of the constants here.
	Kind string `json:"kind"`
	// Member and PID name the process that it happened to; they may be missing.
	Member string `json:"member,omitempty"`
	PID    int    `json:"pid,omitempty"`
	// By is the member that tells it.
	By     string `json:"by"`
	Detail string `json:"detail,omitempty"`
	// Seconds is how long it took, where that is known.
	Seconds float64 `json:"seconds,omitempty"`
}

// The kinds that are not reports of the core.
const (
	// Started: the cluster was started with "up".
	Started = "started"
	// Serving: a leader accepts clients. Seconds is the time since it knew of
	// the death of the leader before, and 0 if there was none.
	Serving = "serving"
	// Rebuilt: a follower gets the whole database, its own copy being of no use.
	Rebuilt = "rebuilt"
	// Ended: a member ends by itself because of an error.
	Ended = "ended"
	// Stopped: a leader ends in order.
	Stopped = "stopped"
	// DiskFull and DiskFreed: writes are refused for lack of room, and taken again.
	DiskFull  = "disk_full"
	DiskFreed = "disk_freed"
	// Lost: lines before this one could not be written.
	Lost = "events_lost"
)

// maxDetailBytes bounds a line; a stack trace belongs into the log.
const maxDetailBytes = 2 << 10

// FromReport makes an event of what the core reports.
func FromReport(r core.Report) Event {
	e := Event{Kind: r.Kind.String(), PID: r.Member.PID, Detail: r.Detail}
	if r.Member.Address.IsValid() {
		e.Member = r.Member.Address.String()
	}
	return e
}

// encode returns the line with its end.
func (e Event) encode() ([]byte, error) {
	if len(e.Detail) > maxDetailBytes {
		e.Detail = strings.ToValidUTF8(e.Detail[:maxDetailBytes], "") + "..."
	}
	e.At = e.At.UTC()
	b, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode event: %w", err)
	}
	return append(b, '\n'), nil
}

// errNoEvent is a line that is none: torn, or not ours.
var errNoEvent = errors.New("no event")

func decode(line []byte) (Event, error) {
	var e Event
	line = bytes.TrimSpace(line)
	if len(line) == 0 || line[0] != '{' || json.Unmarshal(line, &e) != nil || e.Kind == "" || e.At.IsZero() {
		return Event{}, errNoEvent
	}
	return e, nil
}
