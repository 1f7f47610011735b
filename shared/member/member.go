package member

import (
	"context"
	"os"

	"github.com/hashicorp/go-hclog"
	plugin "github.com/hashicorp/go-plugin"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

// Handshake is what a leader and the processes that it starts must agree on. The cookie only
// distinguishes a process that was started by hand by mistake from one that a leader started.
// It protects nothing.
var Handshake = plugin.HandshakeConfig{
	ProtocolVersion:  1,
	MagicCookieKey:   "DYNAST_WORKER",
	MagicCookieValue: "5e1c7d0b-follow-the-leader",
}

// ControlProtocol is the version of the control service in this build. Builds without a common
// version cannot take over each other's processes, and a handshake between them fails.
const ControlProtocol = 1

// ControlPlugins returns the versions of the control service in this build, for the
// negotiation. service is nil on the calling side.
func ControlPlugins(service wire.ControlServer) map[int]plugin.PluginSet {
	return map[int]plugin.PluginSet{ControlProtocol: {ControlPlugin: wire.ControlPlugin{Service: service}}}
}

// ControlPlugin is the name of the control service in go-plugin's set.
const ControlPlugin = "control"

// The environment variables through which a worker gets what is too long for its arguments.
const (
	ConfigEnv = "DYNAST_WORKER_CONFIG" // the effective configuration, config.Encode
	RosterEnv = "DYNAST_WORKER_ROSTER" // wire.EncodeRoster in base64
	// ListenersEnv has the names of the listening sockets that the worker inherits in addition
	// to the standard three descriptors, separated by commas. (Its standard error is that of
	// the first leader.)
	ListenersEnv = "DYNAST_WORKER_LISTENERS"
)

// ReadyFileEnv is the file that the leader writes when it serves. Every later leader inherits
// it with the environment.
const ReadyFileEnv = "DYNAST_READY_FILE"

// SourceEnv says where to read the configuration again, as a config.Source. Every later leader
// inherits it with the environment.
const SourceEnv = "DYNAST_CONFIG_SOURCE"

// The environment variables of a cluster at a terminal, where a parent process shows the events.
const (
	// ParentEnv has the pid of the parent process that started the first leader.
	ParentEnv = "DYNAST_WORKER_PARENT"
	// QuietEnv is set if members write their logs only to files. Every later leader inherits it.
	QuietEnv = "DYNAST_WORKER_QUIET"
)

// The exit codes that a supervisor understands, in addition to those of the core.
const (
	// ExitSlotBusy means that another process owns the worker's slot.
	ExitSlotBusy = 7
	// ExitUsage means that the process cannot work with its arguments, and that another try
	// would fail too.
	ExitUsage = 2
	// ExitDisk means that the disk is full at a point where the process cannot wait for space.
	ExitDisk = 5
)

// Stderr is the standard error with which the process was started. For a worker it is that of
// the first leader. go-plugin replaces os.Stderr by a pipe that may have no reader.
var Stderr = os.Stderr

// Supervisor starts and controls the processes of a leader. No method waits for a process.
// Results are events of the core, posted to the Host.
type Supervisor interface {
	// Spawn starts a follower for a slot. Spawned or SpawnFailed follows. build is the program
	// to start; empty means the leader's own.
	Spawn(slot int, build string)
	// Abort kills the process of an unfinished spawn. SpawnFailed follows, even if there is no
	// process.
	Abort(slot int, reason string)
	// Reattach takes over the control of a follower that an earlier leader started, and tells
	// it who leads.
	Reattach(m roster.Member)
	// Retire asks a follower to end, through its control service.
	Retire(id roster.ID, reason string)
	// Release frees what is held for a process that is gone.
	Release(id roster.ID)
}

// Host is what a supervisor needs from the process that it runs in.
type Host struct {
	// Config returns the current configuration, which a reload can change.
	Config func() *config.Config
	Dir    *datadir.Dir
	Logger hclog.Logger
	// Roster returns the current roster.
	Roster func() *roster.Roster
	// Sockets are passed on to every worker.
	Sockets *Sockets
	// Post hands an event to the member's loop. It does not block for long.
	Post func(core.Event)
	// Version is the version of this build.
	Version string
}

// NewSupervisor makes a supervisor for a process that has become leader.
type NewSupervisor func(Host) (Supervisor, error)

// Services supervises the user's own programs. Only a leader has one. Its methods are safe for
// concurrent use.
type Services interface {
	// Configure replaces the services of the configuration file and says what that changes.
	// With dry it only says it.
	Configure(ctx context.Context, services []config.Service, dry bool) (ServiceChanges, error)
	// Refresh looks at the built-in services again.
	Refresh(ctx context.Context) error
	// Report returns a ps.Report as JSON.
	Report(ctx context.Context) ([]byte, error)
	// Act carries out an operator's command. It returns the instances that the command is
	// about, as soon as the command is accepted.
	Act(ctx context.Context, c ServiceCommand) ([]string, error)
	// StopAll stops all services, those that need others first, and returns when no process is
	// left. They start again with the next "up".
	StopAll(ctx context.Context) error
	// StopPlaced stops the services that run on one host at a time and gives them up, so that other
	// hosts run them. It returns when no process of them is left. They start again under a later leader.
	StopPlaced(ctx context.Context) error
	// Release ends the supervision. The programs run on, and the next leader adopts them. It
	// returns when no start is under way.
	Release()
}

// ServiceChanges are the names of the services that a new configuration changes.
type ServiceChanges struct {
	Added, Removed []string
	// Restarted are the services whose processes are restarted. Changed are those whose
	// processes go on with other settings.
	Restarted, Changed []string
}

// Action is what an operator wants of a service.
type Action string

// The actions.
const (
	ActionStart   Action = "start"
	ActionStop    Action = "stop"
	ActionRestart Action = "restart"
	ActionReload  Action = "reload"
	ActionSignal  Action = "signal"
	ActionKill    Action = "kill"
	ActionRun     Action = "run"    // adds a service
	ActionRemove  Action = "remove" // removes a service that was added at run time
)

// ServiceCommand is an operator's command about services.
type ServiceCommand struct {
	Action Action
	// Names are services, or instances as web/1.
	Names []string
	// Rolling restarts one instance after the other.
	Rolling bool
	// Signal is the name of a signal without SIG, for ActionSignal.
	Signal string
	// Service is what ActionRun adds. RemoveWhenDone removes it when it has ended.
	Service        *config.Service
	RemoveWhenDone bool
}

// ServiceHost is what a Services needs from the process that it runs in.
type ServiceHost struct {
	Config *config.Config
	// Configured are the services of the configuration. It is nil in a process that did not
	// read the configuration file; then the services are those of the leader before.
	Configured []config.Service
	// Builtin returns dynast's own service, the engine, if this host has one. Every other
	// service starts when it is ready, and it stops after every other one.
	Builtin func() []config.Service
	Dir     *datadir.Dir
	BootID  string
	Logger  hclog.Logger
	Sockets *Sockets
	// Fit returns an error if the limit of open files does not allow these services, and Use
	// makes room for them. Both get all services.
	Fit func([]config.Service) error
	Use func([]config.Service)
	// Tell reports an event to operators.
	Tell func(kind, subject string, pid int, detail string)
	// Stopped is called when all services are stopped and the leader before had begun to stop
	// the cluster.
	Stopped func()
}

// NewServices makes the supervisor of the user's programs for a process that has become leader.
type NewServices func(ServiceHost) (Services, error)
