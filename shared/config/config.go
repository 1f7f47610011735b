package config

import (
	"maps"
	"time"
)

// Config is the effective configuration. It is not changed after it was handed
// out, except by Flags.Apply before the start.
type Config struct {
	// DataDir is an absolute path.
	DataDir string
	// Followers is how many followers the leader keeps alive.
	Followers int

	Client      Client
	Dashboard   Dashboard
	Member      Member
	Heartbeat   Heartbeat
	Replication Replication
	Store       Store
	Spawn       Spawn
	Log         Log

	// sources says where a field that is not the default was set: a position
	// in a file or a flag. Nil when unknown (after Decode).
	sources map[string]string
}

// Client is what clients see.
type Client struct {
	// Listen is IP:PORT, in canonical form.
	Listen string
	// CertFile and KeyFile turn TLS on; ClientCAFile makes clients need a
	// certificate. Absolute paths, or empty.
	CertFile, KeyFile, ClientCAFile string
	// AuthToken is the kind of tokens that users get, as etcd's flag
	// --auth-token has it. Its paths are absolute.
	AuthToken string
	// MaxConnections is how many connections there may be, MaxStreams how many
	// requests at once on each, and MaxRequest the size of each.
	MaxConnections, MaxStreams int
	MaxRequest                 Bytes
}

// TLS reports whether clients are served over TLS.
func (c Client) TLS() bool { return c.CertFile != "" }

// Dashboard is the page for operators.
type Dashboard struct {
	// Listen is IP:PORT in canonical form, or "off".
	Listen string
	// TokenFile is an absolute path, or empty: the page is for looking only.
	TokenFile string
}

// On reports whether there is a dashboard.
func (d Dashboard) On() bool { return d.Listen != Off }

// Off turns off what has an address.
const Off = "off"

// Member is where members listen for one another.
type Member struct {
	// Host is an IP address, in canonical form.
	Host  string
	Ports PortRange
}

// PortRange is a range of ports, both ends included; 1 <= First <= Last <= 65535.
type PortRange struct{ First, Last int }

// Heartbeat is the pace of the signs of life; Timeout >= 3 * Interval.
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

// AutoCompaction is how much history is kept: this many revisions, or what is
// younger than this. At most one of them is not 0; both are 0 when it is off.
type AutoCompaction struct {
	Revisions int64
	Period    time.Duration
}

// Spawn bounds the start of a follower.
type Spawn struct{ Timeout time.Duration }

// Log says what is logged, and where to.
type Log struct {
	Level, Format string
	// Directory is an absolute path, or empty: no log files.
	Directory string
	// MaxSize is a whole number of MiB.
	MaxSize    Bytes
	MaxBackups int
}

// Validate reports every field that is out of its range and every pair that
// does not fit, as one error.
func (c *Config) Validate() error {
	var e Error
	for _, f := range fields {
		if err := f.check(c); err != nil {
			e.add(nil, "%s = %s: %v; want %s", f.path, f.text(c), err, f.allowed)
		}
	}
	if len(e.Diagnostics) == 0 {
		for _, x := range c.conflicts() {
			e.add(nil, "%s", x.text)
		}
	}
	return e.orNil()
}

// clone returns a copy that shares nothing with c.
func (c *Config) clone() *Config {
	d := *c
	d.sources = maps.Clone(c.sources)
	return &d
}
