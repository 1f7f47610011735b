package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dynast-io/dynast/shared/rules/core"
)

// Event is something that happened. It is one line of the file.
type Event struct {
	At    time.Time `json:"at"`
	Epoch uint64    `json:"epoch"`
	// Kind says what happened: the name of a core.Kind, or one of the constants here.
	Kind string `json:"kind"`
	// Member and PID name the process that the event is about. They may be missing.
	Member string `json:"member,omitempty"`
	PID    int    `json:"pid,omitempty"`
	// By is the member that reports the event.
	By     string `json:"by"`
	Detail string `json:"detail,omitempty"`
	// Seconds is how long it took, if that is known.
	Seconds float64 `json:"seconds,omitempty"`
}

// These are the kinds that the core does not report.
const (
	// Started: the cluster was started with "up".
	Started = "started"
	// Serving: a leader accepts clients. Seconds is the time since it knew of the previous
	// leader's death, or 0 if there was none.
	Serving = "serving"
	// Rebuilt: a follower gets the whole database, because its own copy cannot be used.
	Rebuilt = "rebuilt"
	// Ended: a member ends because of an error.
	Ended = "ended"
	// Stopped: a leader ends in order.
	Stopped = "stopped"
	// DiskFull and DiskFreed: writes are refused for lack of disk space, and accepted again.
	DiskFull  = "disk_full"
	DiskFreed = "disk_freed"
	// MemoryTight and MemoryEased: writes are refused because the memory limit is nearly
	// reached, and accepted again.
	MemoryTight = "memory_tight"
	MemoryEased = "memory_eased"
	// ClientsWait and ClientsAccepted: the limit of open files allows no more connections of
	// clients and more of them wait, and none has waited for a while.
	ClientsWait     = "clients_wait"
	ClientsAccepted = "clients_accepted"
	// ServiceStarted and the other kinds with this prefix are about an instance of the user's
	// services, which the detail names.
	ServiceStarted    = ServicePrefix + "started"
	ServiceAdopted    = ServicePrefix + "adopted"
	ServiceReady      = ServicePrefix + "ready"
	ServiceExited     = ServicePrefix + "exited"
	ServiceStopped    = ServicePrefix + "stopped"
	ServiceUnhealthy  = ServicePrefix + "unhealthy"
	ServiceNotStarted = ServicePrefix + "not_started"
	ServiceDone       = ServicePrefix + "done"
	ServiceFailed     = ServicePrefix + "failed"
	ServiceKilled     = ServicePrefix + "killed"
	ServiceSkipped    = ServicePrefix + "skipped"
	ServiceAborted    = ServicePrefix + "rolling_restart_aborted"
	// ServiceOwned and ServiceGivenUp are about a service that runs on one host at a time.
	ServiceOwned   = ServicePrefix + "owned"
	ServiceGivenUp = ServicePrefix + "given_up"
	// HostsSwitch: this host changes between a store of its own and that of several hosts.
	HostsSwitch = "hosts_switch"
	// Lost: lines before this one could not be written.
	Lost = "events_lost"
)

// ServicePrefix begins the kinds that are about the user's services.
const ServicePrefix = "service_"

// Kinds returns every kind of event, those of the core and the others.
func Kinds() []string {
	var all []string
	for _, k := range core.Kinds() {
		all = append(all, k.String())
	}
	return append(all, Started, Serving, Rebuilt, Ended, Stopped, DiskFull, DiskFreed, MemoryTight, MemoryEased, ClientsWait, ClientsAccepted,
		ServiceStarted, ServiceAdopted, ServiceReady, ServiceExited, ServiceStopped, ServiceUnhealthy, ServiceNotStarted,
		ServiceDone, ServiceFailed, ServiceKilled, ServiceSkipped, ServiceAborted, ServiceOwned, ServiceGivenUp, HostsSwitch, Lost)
}

// maxDetailBytes bounds the detail in a line. A stack trace belongs in the log.
const maxDetailBytes = 2 << 10

// FromReport makes an event from a report of the core.
func FromReport(r core.Report) Event {
	e := Event{Kind: r.Kind.String(), PID: r.Member.PID, Detail: r.Detail}
	if r.Member.Address.IsValid() {
		e.Member = r.Member.Address.String()
	}
	return e
}

// encode returns the line including its end.
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

// errNoEvent means that a line is not an event: it is torn, or another program wrote it.
var errNoEvent = errors.New("not an event")

func decode(line []byte) (Event, error) {
	var e Event
	line = bytes.TrimSpace(line)
	if len(line) == 0 || line[0] != '{' || json.Unmarshal(line, &e) != nil || e.Kind == "" || e.At.IsZero() {
		return Event{}, errNoEvent
	}
	return e, nil
}
