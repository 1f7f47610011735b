package config

import "time"

// Service is one of the user's own programs, from a block `service "NAME" { ... }`.
type Service struct {
	// Name is unique. It consists of letters, digits, '.', '_' and '-', starts with a letter or a
	// digit, and has at most 64 bytes.
	Name string
	// Source is where the block stands, as FILE:LINE. It is empty for a service that was added
	// at run time.
	Source string
	// Command is the program and its arguments. Script is a text for /bin/sh -c. Exactly one of
	// them is set.
	Command []string
	Script  string
	// Dir is the working directory, an absolute path. The default is the directory of the
	// configuration file, or that of `dynast up` without a file.
	Dir string
	// User and Group are names or numbers. If they are empty, the program runs as dynast does.
	User, Group string
	// Umask is -1 if it is not set.
	Umask int
	// Env is added to the environment. EnvFile is an absolute path to a file with lines
	// NAME=VALUE, or empty. Env has precedence.
	Env     map[string]string
	EnvFile string
	// Instances is how many processes of this service run on a host.
	Instances int
	// Hosts says on which hosts of a cluster it runs. A single host runs every service.
	Hosts   Placement
	Restart Restart
	// Listen are the sockets that dynast opens once and passes on to every instance.
	Listen []Listen
	// Needs are the services that must be ready before this one starts. After are the services
	// that must have succeeded or be ready before.
	Needs, After []string
	// Ready decides when an instance is ready. A nil Ready means: as soon as it runs. Alive
	// restarts an instance that fails it. A nil Alive means that only an exit restarts it.
	Ready, Alive *Check
	Stop         StopPolicy
	Reload       ReloadAction
	// Schedule is a cron expression with five fields, or empty. With it the service is a task.
	Schedule string
	Backoff  Backoff
	Limits   Limits
	Log      ServiceLog
	Security Security
}

// Placement says on which hosts a service runs. The zero value means all of them.
type Placement struct {
	// One means one host at a time, which the store decides.
	One bool `json:",omitempty"`
	// Names are the only hosts on which it runs, or empty.
	Names []string `json:",omitempty"`
}

// Restart says which exits of a program are followed by another start.
type Restart string

// The restart policies.
const (
	RestartAlways    Restart = "always"
	RestartOnFailure Restart = "on-failure"
	RestartNever     Restart = "never"
)

// Listen is a socket that dynast holds for a service.
type Listen struct {
	// Name is unique within the service. The program finds it in LISTEN_FDNAMES.
	Name string
	// Address is IP:PORT (TCP), or unix:PATH with an absolute path.
	Address string
}

// CheckKind is the way in which a check asks.
type CheckKind string

// The kinds of checks. CheckDelay only waits. CheckNotify waits for READY=1 as a ready check; as
// an alive check it is the watchdog: the program has to send WATCHDOG=1 within each interval.
const (
	CheckHTTP   CheckKind = "http"
	CheckExec   CheckKind = "exec"
	CheckTCP    CheckKind = "tcp"
	CheckGRPC   CheckKind = "grpc"
	CheckNotify CheckKind = "notify"
	CheckDelay  CheckKind = "delay"
)

// Check finds out whether an instance is ready, or still alive.
type Check struct {
	Kind CheckKind
	// Target is the URL of an HTTP check, and HOST:PORT of a TCP or gRPC check.
	Target string
	// Command is the program of an exec check. Exit status 0 is a success.
	Command []string
	// Delay is how long a delay check waits.
	Delay time.Duration
	// Interval is the time between two attempts, and Timeout bounds one attempt.
	Interval, Timeout time.Duration
	// Threshold is how many failures in a row make an alive check fail. A ready check needs one
	// success.
	Threshold int
}

// StopPolicy says how an instance is stopped: a signal to its main process, and after Timeout
// SIGKILL to its whole process tree.
type StopPolicy struct {
	// Signal is a name without SIG, for example TERM.
	Signal  string
	Timeout time.Duration
	// Hung is used in place of Timeout for an instance that failed its watchdog; 0 means Timeout.
	// Only dynast's own services have it.
	Hung time.Duration
}

// ReloadAction makes a running program read its configuration again: a signal or a command. If
// both are empty, the service cannot reload.
type ReloadAction struct {
	Signal  string
	Command []string
}

// Backoff delays the restarts of a program that fails again and again.
type Backoff struct {
	// First is the first delay, after the second failure in a short time. Each further failure
	// doubles it, up to Max.
	First, Max time.Duration
	// Limit is how many failures in a short time make the instance "failed". 0 means no limit.
	Limit int
}

// Limits bound what an instance may use. 0 means no limit.
type Limits struct {
	Memory Bytes
	// CPUMillis is in thousandths of a processor.
	CPUMillis int
	OpenFiles int
	Processes int
}

// ServiceLog bounds the output file of an instance.
type ServiceLog struct {
	MaxSize    Bytes
	MaxBackups int
}

// Security takes privileges away from a program.
type Security struct {
	// NoNewPrivileges keeps set-user-ID programs from gaining privileges.
	NoNewPrivileges bool
	// DropCapabilities are names without CAP_, or the single word "all".
	DropCapabilities []string
}
