package config

import (
	"time"

	"github.com/zclconf/go-cty/cty"
)

// field is one row of a table of fields. Flags, parsing, checks and error messages are all
// derived from it. T is the struct that holds the value: Config, or Service for the fields of a
// service block.
type field[T any] struct {
	// path is the name in the file: "timeout" in the block "heartbeat" is
	// heartbeat.timeout.
	path string
	// kind is the placeholder for its value in the help text of its flag.
	kind string
	// convert turns a value that is neither a string nor a whole number into the text that parse
	// reads. It is nil for all others.
	convert func(v cty.Value) (string, error)
	// number is true for a value that is written without quotes in the file.
	number bool
	// usage is the help text of its flag.
	usage string
	// allowed says which values are allowed. It completes the sentence "want ...".
	allowed string

	// parse reads and stores a value. It does not check the range.
	parse func(c *T, text string) error
	// check returns an error if the stored value is not allowed.
	check func(c *T) error
	// text returns the stored value in the form that parse reads.
	text func(c *T) string
}

// set parses, stores and checks a value.
func (f *field[T]) set(c *T, text string) error {
	if err := f.parse(c, text); err != nil {
		return err
	}
	return f.check(c)
}

// fields is the table of all fields, in the order of config.hcl.
var fields = []*field[Config]{
	pathField("data_dir", "directory that holds the data of the cluster",
		true, func(c *Config) *string { return &c.DataDir }),
	countField("followers", "number of followers that the leader keeps running",
		"processes", 0, 32, func(c *Config) *int { return &c.Followers }),
	endpointField("client.listen", "address on which clients connect",
		func(c *Config) *string { return &c.Client.Listen }),
	pathField("client.cert_file", "server certificate for client connections (PEM); turns TLS on",
		false, func(c *Config) *string { return &c.Client.CertFile }),
	pathField("client.key_file", "private key of client.cert_file (PEM)",
		false, func(c *Config) *string { return &c.Client.KeyFile }),
	pathField("client.client_ca_file", "CA for client certificates (PEM); clients then need a certificate that it signed",
		false, func(c *Config) *string { return &c.Client.ClientCAFile }),
	tokenField("client.auth_token", "kind of token that an authenticated user gets",
		func(c *Config) *string { return &c.Client.AuthToken }),
	countField("client.max_connections", "maximum number of client connections that are open at the same time",
		"connections", 16, 1_000_000, func(c *Config) *int { return &c.Client.MaxConnections }),
	countField("client.max_streams", "maximum number of concurrent requests and watch streams on one connection",
		"requests", 1, 1_000_000, func(c *Config) *int { return &c.Client.MaxStreams }),
	sizeField("client.max_request", "maximum size of a client request",
		"1536KiB", 64*KiB, 32*MiB, 1, func(c *Config) *Bytes { return &c.Client.MaxRequest }),
	countField("client.max_txn_ops", "maximum number of operations in one transaction",
		"operations", 1, 100_000, func(c *Config) *int { return &c.Client.MaxTxnOps }),
	durationField("client.watch_progress_interval", "how often watchers that asked for progress notifications get one",
		"10m", 100*time.Millisecond, 24*time.Hour, func(c *Config) *time.Duration { return &c.Client.WatchProgressInterval }),
	optionalEndpointField("dashboard.listen", "address of the dashboard (a web page for operators), or off",
		func(c *Config) *string { return &c.Dashboard.Listen }),
	pathField("dashboard.token_file", "file with the token that allows changes from the dashboard; empty: the dashboard is read-only",
		false, func(c *Config) *string { return &c.Dashboard.TokenFile }),
	hostField("member.host", "address on which members listen for each other",
		func(c *Config) *string { return &c.Member.Host }),
	portsField("member.ports", "port range from which each member gets a port",
		func(c *Config) *PortRange { return &c.Member.Ports }),
	durationField("heartbeat.interval", "how often members send each other a heartbeat",
		"250ms", 10*time.Millisecond, time.Minute, func(c *Config) *time.Duration { return &c.Heartbeat.Interval }),
	durationField("heartbeat.timeout", "time without a heartbeat after which a member is killed and replaced",
		"1s", 50*time.Millisecond, 10*time.Minute, func(c *Config) *time.Duration { return &c.Heartbeat.Timeout }),
	countField("replication.min_sync", "number of followers that must have a write before the client gets an acknowledgement",
		"processes", 0, 32, func(c *Config) *int { return &c.Replication.MinSync }),
	countField("replication.queue_requests", "maximum number of writes that wait for an acknowledgement",
		"requests", 1, 1_000_000, func(c *Config) *int { return &c.Replication.QueueRequests }),
	sizeField("replication.queue_bytes", "maximum total size of the writes that wait for an acknowledgement",
		"64MiB", 2*MiB, 16*GiB, 1, func(c *Config) *Bytes { return &c.Replication.QueueBytes }),
	sizeField("store.quota", "database size above which writes are refused",
		"2GiB", 64*KiB, TiB, 1, func(c *Config) *Bytes { return &c.Store.Quota }),
	sizeField("store.disk_reserve", "free disk space below which writes are refused",
		"64MiB", 16*MiB, TiB, 1, func(c *Config) *Bytes { return &c.Store.DiskReserve }),
	durationField("store.commit_interval", "how often changes in memory are committed to the database file",
		"1s", time.Millisecond, time.Minute, func(c *Config) *time.Duration { return &c.Store.CommitInterval }),
	retentionField("store.auto_compaction", "how much history is kept: off, a number of revisions, or a duration",
		1_000_000_000_000, time.Second, 8760*time.Hour, func(c *Config) *AutoCompaction { return &c.Store.AutoCompaction }),
	durationField("store.compare_interval", "how often the keys of each follower are compared with those of the leader",
		"10m", 100*time.Millisecond, 8760*time.Hour, func(c *Config) *time.Duration { return &c.Store.CompareInterval }),
	durationField("spawn.timeout", "how long a new follower that shows no progress may take to join",
		"10s", 100*time.Millisecond, 10*time.Minute, func(c *Config) *time.Duration { return &c.Spawn.Timeout }),
	textField("hosts.join", "address of a host of the cluster that this host joins at its first start; empty: it stays alone", `IP:PORT of another host, for example "10.0.0.1:2380"`,
		CheckHostAddress, func(c *Config) *string { return &c.Hosts.Join }),
	pathField("hosts.token_file", "file with the token that admits this host; 'dynast hosts token' makes one",
		false, func(c *Config) *string { return &c.Hosts.TokenFile }),
	textField("hosts.address", "address at which other hosts reach this one; empty: chosen when it joins", `IP:PORT of this host, for example "10.0.0.2:2380"`,
		CheckHostAddress, func(c *Config) *string { return &c.Hosts.Address }),
	textField("hosts.name", "name of this host; empty: the host's name", `1 to 63 letters, digits, ".", "_" and "-"`,
		CheckHostName, func(c *Config) *string { return &c.Hosts.Name }),
	durationField("hosts.election", "time without the leading host after which the others choose another one",
		"500ms", 50*time.Millisecond, 50*time.Second, func(c *Config) *time.Duration { return &c.Hosts.Election }),
	durationField("hosts.heartbeat", "how often the leading host sends the others a heartbeat",
		"50ms", 10*time.Millisecond, 10*time.Second, func(c *Config) *time.Duration { return &c.Hosts.Heartbeat }),
	countField("hosts.snapshot_count", "number of entries in the log after which a host makes a snapshot",
		"entries", 100, 10_000_000, func(c *Config) *int { return &c.Hosts.SnapshotCount }),
	choiceField("log.level", "lowest severity that is logged",
		[]string{"trace", "debug", "info", "warn", "error"}, func(c *Config) *string { return &c.Log.Level }),
	choiceField("log.format", "format of the log",
		[]string{"text", "json"}, func(c *Config) *string { return &c.Log.Format }),
	optionalPathField("log.directory", "directory for log files; empty: logs in the data directory; off: members log to standard error only",
		func(c *Config) *string { return &c.Log.Directory }),
	sizeField("log.max_size", "size at which a log file is rotated",
		"16MiB", MiB, 100*GiB, MiB, func(c *Config) *Bytes { return &c.Log.MaxSize }),
	countField("log.max_backups", "number of rotated log files that are kept for each member",
		"files", 1, 1000, func(c *Config) *int { return &c.Log.MaxBackups }),
}

var byPath = func() map[string]*field[Config] {
	m := make(map[string]*field[Config], len(fields))
	for _, f := range fields {
		m[f.path] = f
	}
	return m
}()
