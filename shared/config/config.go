package config

import (
	"maps"
	"path/filepath"
	"time"
)

// Config is the effective configuration. It does not change after it was handed out, except by
// Flags.Apply before the start.
type Config struct {
	// DataDir is an absolute path.
	DataDir string
	// Followers is how many followers the leader keeps running.
	Followers int

	Client      Client
	Dashboard   Dashboard
	Member      Member
	Heartbeat   Heartbeat
	Replication Replication
	Store       Store
	Spawn       Spawn
	Hosts       Hosts
	Log         Log

	// Services are the user's own programs, in the order of the file.
	Services []Service

	// sources maps a field that is not the default to where it was set: a position in a file,
	// or a flag. It is nil if that is not known (after Decode).
	sources map[string]string
	// dataDirText is data_dir as it was given. It is empty if that is not known (after Decode).
	dataDirText string
}

// Client is the configuration of the service for clients.
type Client struct {
	// Listen is IP:PORT, in canonical form.
	Listen string
	// CertFile and KeyFile switch TLS on. ClientCAFile makes clients need a certificate. They
	// are absolute paths, or empty.
	CertFile, KeyFile, ClientCAFile string
	// AuthToken is the kind of tokens that users get, in the format of etcd's flag
	// --auth-token. Paths in it are absolute.
	AuthToken string
	// MaxConnections is the maximum number of connections, MaxStreams the maximum number of
	// concurrent requests of one connection, and MaxRequest the maximum size of a request.
	MaxConnections, MaxStreams int
	MaxRequest                 Bytes
	// MaxTxnOps is the maximum number of operations in a transaction, including inner
	// transactions.
	MaxTxnOps int
	// WatchProgressInterval is how often watchers that asked for it get a progress report.
	WatchProgressInterval time.Duration
}

// TLS reports whether clients are served over TLS.
func (c Client) TLS() bool { return c.CertFile != "" }

// Dashboard is the page for operators.
type Dashboard struct {
	// Listen is IP:PORT in canonical form, or "off".
	Listen string
	// TokenFile is an absolute path, or empty. Without it the page can change nothing.
	TokenFile string
}

// On reports whether there is a dashboard.
func (d Dashboard) On() bool { return d.Listen != Off }

// Off is the value of an address that switches its service off.
const Off = "off"

// Member is the configuration of the addresses at which members listen for each other.
type Member struct {
	// Host is an IP address, in canonical form.
	Host  string
	Ports PortRange
}

// PortRange is a range of ports that includes both ends; 1 <= First <= Last <= 65535.
type PortRange struct{ First, Last int }

// Heartbeat is the pace of the heartbeats; Timeout >= 3 * Interval.
type Heartbeat struct{ Interval, Timeout time.Duration }

// Replication bounds the write path; MinSync <= Followers.
type Replication struct {
	MinSync       int
	QueueRequests int
	QueueBytes    Bytes
}

// Store bounds the state machine.
type Store struct {
	Quota           Bytes
	DiskReserve     Bytes
	CommitInterval  time.Duration
	AutoCompaction  AutoCompaction
	CompareInterval time.Duration
}

// AutoCompaction is how much history is kept: a number of revisions, or the revisions of a
// period. At most one of the two is not 0. Both are 0 if automatic compaction is off.
type AutoCompaction struct {
	Revisions int64
	Period    time.Duration
}

// Spawn bounds the start of a follower.
type Spawn struct{ Timeout time.Duration }

// Hosts is the configuration of a cluster of several hosts. A host that is alone does not use it.
type Hosts struct {
	// Join is the IP:PORT of a host of the cluster that this host joins at its first start, or
	// empty. TokenFile is an absolute path to a file with the token that admits it.
	Join, TokenFile string
	// Address is the IP:PORT at which other hosts reach this one, and Name its name. If they are
	// empty, they are chosen when the host joins.
	Address, Name string
	// Election is Raft's election timeout, and Heartbeat the pace of the Raft leader's
	// heartbeats; Election >= 5 * Heartbeat.
	Election, Heartbeat time.Duration
	// SnapshotCount is after how many entries of the log Raft makes a snapshot.
	SnapshotCount int
}

// Log says what is logged and where.
type Log struct {
	Level, Format string
	// Directory is an absolute path, Off for no log files, or empty for a directory in the data
	// directory; see Config.LogDirectory.
	Directory string
	// MaxSize is a whole number of MiB.
	MaxSize    Bytes
	MaxBackups int
}

// LogDirectory returns the directory for log files, or "" if there are none.
func (c *Config) LogDirectory() string {
	switch c.Log.Directory {
	case Off:
		return ""
	case "":
		return filepath.Join(c.DataDir, "logs")
	}
	return c.Log.Directory
}

// WithoutServices returns a copy without the services. It is what a leader passes to the other
// members: a thousand services would not fit into an environment variable, and every later leader
// finds the services in the data directory.
func (c *Config) WithoutServices() *Config {
	d := c.clone()
	d.Services = nil
	return d
}

// Validate returns one error with every field that is out of its range and every pair of fields
// that does not fit.
func (c *Config) Validate() error {
	var e Error
	for _, f := range fields {
		if err := f.check(c); err != nil {
			e.add(nil, "%s = %s: %v; want %s", f.path, f.text(c), err, f.allowed)
		}
	}
	c.checkServices(&e)
	if len(e.Diagnostics) == 0 {
		for _, x := range c.conflicts() {
			e.add(nil, "%s", x.text)
		}
		for _, x := range c.serviceConflicts() {
			e.add(nil, "%s%s", c.Services[x.service].origin(), x.text)
		}
	}
	return e.orNil()
}

// clone returns a copy that shares nothing with c.
func (c *Config) clone() *Config {
	d := *c
	d.sources = maps.Clone(c.sources)
	d.Services = cloneServices(c.Services)
	return &d
}
