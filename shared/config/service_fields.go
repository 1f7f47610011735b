package config

import (
	"time"
)

// NewService returns a service with the default of every field that has one. Name, Dir, and
// Command or Script are missing.
func NewService() Service {
	return Service{
		Umask: -1, Instances: 1, Restart: RestartAlways,
		Stop:    StopPolicy{Signal: "TERM", Timeout: 10 * time.Second},
		Backoff: Backoff{First: 100 * time.Millisecond, Max: 30 * time.Second},
		Log:     ServiceLog{MaxSize: 16 * MiB, MaxBackups: 3},
	}
}

func newCheck() *Check {
	return &Check{Interval: time.Second, Timeout: time.Second, Threshold: 3}
}

const (
	serviceBlock = "service" // the type of a service block
	listenBlock  = "listen"  // the type of a block inside it that has a label
)

// serviceFields is the table of the fields of a service block, in the order of config.hcl. An
// empty text means that a field is not set.
var serviceFields = func() []*field[Service] {
	out := []*field[Service]{
		listField("command", `a program and its arguments, for example ["./server", "-port", "8080"]`, checkCommand,
			func(s *Service) *[]string { return &s.Command }),
		stringField("script", `a text for "/bin/sh -c"`, checkArgument, func(s *Service) *string { return &s.Script }),
		pathField("dir", "", true, func(s *Service) *string { return &s.Dir }),
		stringField("user", `a user name or number, for example "www-data"`, checkOwner, func(s *Service) *string { return &s.User }),
		stringField("group", `a group name or number, for example "www-data"`, checkOwner, func(s *Service) *string { return &s.Group }),
		umaskField("umask", func(s *Service) *int { return &s.Umask }),
		mapField("env", `names and values, for example { PORT = "8080" }`, checkEnv, func(s *Service) *map[string]string { return &s.Env }),
		pathField("env_file", "", false, func(s *Service) *string { return &s.EnvFile }),
		countField("instances", "", "processes", 0, 1000, func(s *Service) *int { return &s.Instances }),
		placementField("hosts", func(s *Service) *Placement { return &s.Hosts }),
		choiceField("restart", "", []Restart{RestartAlways, RestartOnFailure, RestartNever}, func(s *Service) *Restart { return &s.Restart }),
		listensField(listenBlock, func(s *Service) *[]Listen { return &s.Listen }),
		listField("needs", `names of other services, for example ["db"]`, checkNames, func(s *Service) *[]string { return &s.Needs }),
		listField("after", `names of other services, for example ["migrate"]`, checkNames, func(s *Service) *[]string { return &s.After }),
	}
	for _, f := range checkFields {
		out = append(out, inCheck("ready.", f, func(s *Service) **Check { return &s.Ready }))
	}
	for _, f := range checkFields {
		if f.path != string(CheckDelay) { // a delay cannot fail
			out = append(out, inCheck("alive.", f, func(s *Service) **Check { return &s.Alive }))
		}
	}
	return append(out,
		signalField("stop.signal", true, func(s *Service) *string { return &s.Stop.Signal }),
		durationField("stop.timeout", "", "10s", 0, 24*time.Hour, func(s *Service) *time.Duration { return &s.Stop.Timeout }),
		signalField("reload.signal", false, func(s *Service) *string { return &s.Reload.Signal }),
		listField("reload.exec", `a program and its arguments, for example ["nginx", "-s", "reload"]`, checkCommand,
			func(s *Service) *[]string { return &s.Reload.Command }),
		scheduleField("schedule", func(s *Service) *string { return &s.Schedule }),
		durationField("backoff.first", "", "100ms", time.Millisecond, time.Hour, func(s *Service) *time.Duration { return &s.Backoff.First }),
		durationField("backoff.max", "", "30s", time.Millisecond, 24*time.Hour, func(s *Service) *time.Duration { return &s.Backoff.Max }),
		countField("backoff.limit", "", "failures", 0, 1_000_000, func(s *Service) *int { return &s.Backoff.Limit }),
		sizeField("limits.memory", "", "512MiB", 0, 1024*TiB, 1, func(s *Service) *Bytes { return &s.Limits.Memory }),
		cpuField("limits.cpu", func(s *Service) *int { return &s.Limits.CPUMillis }),
		countField("limits.open_files", "", "files", 0, 1<<30, func(s *Service) *int { return &s.Limits.OpenFiles }),
		countField("limits.processes", "", "processes", 0, 1<<22, func(s *Service) *int { return &s.Limits.Processes }),
		sizeField("log.max_size", "", "16MiB", 64*KiB, TiB, 1, func(s *Service) *Bytes { return &s.Log.MaxSize }),
		countField("log.max_backups", "", "files", 0, 1000, func(s *Service) *int { return &s.Log.MaxBackups }),
		boolField("security.no_new_privileges", func(s *Service) *bool { return &s.Security.NoNewPrivileges }),
		capabilitiesField("security.drop_capabilities", func(s *Service) *[]string { return &s.Security.DropCapabilities }),
	)
}()

// checkFields is the table of the fields of the blocks ready and alive.
var checkFields = []*field[Check]{
	ofKind(CheckHTTP, stringField("http", `a URL, for example "http://127.0.0.1:8080/healthz"`, checkURL, func(c *Check) *string { return &c.Target })),
	ofKind(CheckExec, listField("exec", `a program and its arguments, for example ["pg_isready", "-q"]`, checkCommand, func(c *Check) *[]string { return &c.Command })),
	ofKind(CheckTCP, stringField("tcp", `HOST:PORT, for example "127.0.0.1:5432"`, checkHostPort, func(c *Check) *string { return &c.Target })),
	ofKind(CheckGRPC, stringField("grpc", `HOST:PORT, for example "127.0.0.1:9000"`, checkHostPort, func(c *Check) *string { return &c.Target })),
	notifyField("notify"),
	ofKind(CheckDelay, durationField("delay", "", "2s", time.Millisecond, time.Hour, func(c *Check) *time.Duration { return &c.Delay })),
	durationField("interval", "", "1s", 10*time.Millisecond, time.Hour, func(c *Check) *time.Duration { return &c.Interval }),
	durationField("timeout", "", "1s", 10*time.Millisecond, time.Hour, func(c *Check) *time.Duration { return &c.Timeout }),
	countField("threshold", "", "failures in a row", 1, 1000, func(c *Check) *int { return &c.Threshold }),
}

var checkKinds = []CheckKind{CheckHTTP, CheckExec, CheckTCP, CheckGRPC, CheckNotify, CheckDelay}

var serviceByPath = func() map[string]*field[Service] {
	m := make(map[string]*field[Service], len(serviceFields))
	for _, f := range serviceFields {
		m[f.path] = f
	}
	return m
}()

// listenFields is the table of the fields of a block listen.
var listenFields = []*field[Listen]{
	stringField("address", `IP:PORT, for example "127.0.0.1:8080", or unix:PATH with an absolute path`, checkListenAddress,
		func(l *Listen) *string { return &l.Address }),
}
