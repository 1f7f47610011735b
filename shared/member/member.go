package member

import (
	"os"

	"github.com/hashicorp/go-hclog"
	plugin "github.com/hashicorp/go-plugin"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/datadir"
	"github.com/dynast-io/dynast/shared/roster"
	"github.com/dynast-io/dynast/shared/wire"
)

// Handshake is what a leader and the processes that it starts must agree on.
// The cookie only tells a process that was started by hand by mistake from one
// that a leader started; it protects nothing.
var Handshake = plugin.HandshakeConfig{
	ProtocolVersion:  1,
	MagicCookieKey:   "DYNAST_WORKER",
	MagicCookieValue: "5e1c7d0b-follow-the-leader",
}

// ControlProtocol is the version of the control service that this build speaks.
// Builds that have none in common cannot take over each other's processes, and a
// handshake between them fails.
const ControlProtocol = 1

// ControlPlugins are the versions of the control service that this build speaks, to be
// negotiated. service is nil on the side that calls.
func ControlPlugins(service wire.ControlServer) map[int]plugin.PluginSet {
	return map[int]plugin.PluginSet{ControlProtocol: {ControlPlugin: wire.ControlPlugin{Service: service}}}
}

// ControlPlugin is the name of the control service in go-plugin's set.
const ControlPlugin = "control"

// The environment variables by which a spawned worker gets what is too long
// for its arguments.
const (
	ConfigEnv = "DYNAST_WORKER_CONFIG" // the effective configuration, config.Encode
	RosterEnv = "DYNAST_WORKER_ROSTER" // wire.EncodeRoster in base64
	// ListenersEnv names the listening sockets that it inherits besides the
	// standard three descriptors, with commas between. (Its standard error is the first leader's.)
	ListenersEnv = "DYNAST_WORKER_LISTENERS"
)

// ReadyFileEnv is the file that the leader writes once it serves; every later
// leader inherits it with the environment.
const ReadyFileEnv = "DYNAST_READY_FILE"

// SourceEnv is where the configuration is read again from, config.Source; every
// later leader inherits it with the environment.
const SourceEnv = "DYNAST_CONFIG_SOURCE"

// The exit codes that a supervisor understands, besides those of the core.
const (
	// ExitSlotBusy: another process owns the slot that the worker was given.
	ExitSlotBusy = 7
	// ExitDisk: the disk is full at a point where that can't be waited for.
	ExitDisk = 5
)

// Stderr is the standard error that the process was started with; for a
// worker that is the first leader's. go-plugin replaces os.Stderr by a pipe that
// nobody may read.
var Stderr = os.Stderr

// Supervisor starts and controls the processes of a leader. No method waits
// for a process: results come as events of the core, posted to the Host.
type Supervisor interface {
	// Spawn starts a follower for a slot: Spawned or SpawnFailed follows. build is the
	// program to start; empty is the own one.
	Spawn(slot int, build string)
	// Abort kills the process of a spawn that is not finished: SpawnFailed
	// follows, also when there is none.
	Abort(slot int, reason string)
	// Reattach takes over the control of a follower that an earlier leader
	// started, and tells it who leads.
	Reattach(m roster.Member)
	// Retire asks a follower to end, over its control service.
	Retire(id roster.ID, reason string)
	// Release drops what is held for a process that is gone.
	Release(id roster.ID)
}

// Host is what a supervisor needs of the process that it runs in.
type Host struct {
	// Config returns what is in force: a reload changes it.
	Config func() *config.Config
	Dir    *datadir.Dir
	Logger hclog.Logger
	// Roster returns the current roster.
	Roster func() *roster.Roster
	// Listeners are passed on to every worker.
	Listeners Listeners
	// Post hands an event to the member's loop. It never blocks for long.
	Post func(core.Event)
	// Version is the build that runs here.
	Version string
}

// NewSupervisor makes a supervisor for a process that has become leader.
type NewSupervisor func(Host) (Supervisor, error)
