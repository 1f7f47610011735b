package config

import (
	"time"
)

// field is one row of the table from which everything else is made.
type field struct {
	// path is the name in the file: "timeout" in the block "heartbeat" is
	// heartbeat.timeout.
	path string
	// kind is the word for its values in the help of its flag.
	kind string
	// number: written without quotes in the file.
	number bool
	// usage is the help of its flag.
	usage string
	// allowed completes the sentence "want ...".
	allowed string

	// parse reads and stores a value; it does not check the range.
	parse func(c *Config, text string) error
	// check reports a stored value that is not allowed.
	check func(c *Config) error
	// text is the stored value in the form that parse reads.
	text func(c *Config) string
}

// set stores a value that is allowed.
func (f *field) set(c *Config, text string) error {
	if err := f.parse(c, text); err != nil {
		return err
	}
	return f.check(c)
}

// fields is the table, in the order of config.hcl.
var fields = []*field{
	pathField("data_dir", "directory of the cluster's data",
		true, func(c *Config) *string { return &c.DataDir }),
	countField("followers", "how many followers the leader keeps alive",
		"processes", 0, 32, func(c *Config) *int { return &c.Followers }),
	endpointField("client.listen", "the address that clients use",
		func(c *Config) *string { return &c.Client.Listen }),
	pathField("client.cert_file", "certificate for clients (PEM), turns TLS on",
		false, func(c *Config) *string { return &c.Client.CertFile }),
	pathField("client.key_file", "key of the certificate for clients (PEM)",
		false, func(c *Config) *string { return &c.Client.KeyFile }),
	pathField("client.client_ca_file", "CA of clients' certificates (PEM), which they then need",
		false, func(c *Config) *string { return &c.Client.ClientCAFile }),
	tokenField("client.auth_token", "the kind of tokens that users get",
		func(c *Config) *string { return &c.Client.AuthToken }),
	countField("client.max_connections", "connections of clients at the same time",
		"connections", 16, 1_000_000, func(c *Config) *int { return &c.Client.MaxConnections }),
	countField("client.max_streams", "requests and watches of one connection at the same time",
		"requests", 1, 1_000_000, func(c *Config) *int { return &c.Client.MaxStreams }),
	sizeField("client.max_request", "size of a client's largest request",
		"1536KiB", 64*KiB, 32*MiB, 1, func(c *Config) *Bytes { return &c.Client.MaxRequest }),
	optionalEndpointField("dashboard.listen", "the address of the page for operators, or off",
		func(c *Config) *string { return &c.Dashboard.Listen }),
	pathField("dashboard.token_file", "file with the token that allows the page to change something",
		false, func(c *Config) *string { return &c.Dashboard.TokenFile }),
	hostField("member.host", "address on which members listen for one another",
		func(c *Config) *string { return &c.Member.Host }),
	portsField("member.ports", "ports that members are given",
		func(c *Config) *PortRange { return &c.Member.Ports }),
	durationField("heartbeat.interval", "how often members tell each other that they are alive",
		"250ms", 10*time.Millisecond, time.Minute, func(c *Config) *time.Duration { return &c.Heartbeat.Interval }),
	durationField("heartbeat.timeout", "silence after which a member is killed and replaced",
		"1s", 50*time.Millisecond, 10*time.Minute, func(c *Config) *time.Duration { return &c.Heartbeat.Timeout }),
	countField("replication.min_sync", "followers that must have a write before it is acknowledged",
		"processes", 0, 32, func(c *Config) *int { return &c.Replication.MinSync }),
	countField("replication.queue_requests", "writes that may wait for an acknowledgement",
		"requests", 1, 1_000_000, func(c *Config) *int { return &c.Replication.QueueRequests }),
	sizeField("replication.queue_bytes", "bytes of all waiting writes together",
		"64MiB", 2*MiB, 16*GiB, 1, func(c *Config) *Bytes { return &c.Replication.QueueBytes }),
	sizeField("store.quota", "size of the database above which writes are refused",
		"2GiB", MiB, TiB, 1, func(c *Config) *Bytes { return &c.Store.Quota }),
	sizeField("store.disk_reserve", "free disk space below which writes are refused",
		"64MiB", 16*MiB, TiB, 1, func(c *Config) *Bytes { return &c.Store.DiskReserve }),
	durationField("store.commit_interval", "how often changes go from memory to the database file",
		"1s", time.Millisecond, time.Minute, func(c *Config) *time.Duration { return &c.Store.CommitInterval }),
	retentionField("store.auto_compaction", "history that is kept: off, a number of revisions, or a duration",
		1_000_000_000_000, time.Second, 8760*time.Hour, func(c *Config) *AutoCompaction { return &c.Store.AutoCompaction }),
	durationField("store.compare_interval", "how often followers' keys are compared with the leader's",
		"10m", 100*time.Millisecond, 8760*time.Hour, func(c *Config) *time.Duration { return &c.Store.CompareInterval }),
	durationField("spawn.timeout", "time that a new follower that is not seen working may take until it joins",
		"10s", 100*time.Millisecond, 10*time.Minute, func(c *Config) *time.Duration { return &c.Spawn.Timeout }),
	choiceField("log.level", "least severe messages that are logged",
		[]string{"trace", "debug", "info", "warn", "error"}, func(c *Config) *string { return &c.Log.Level }),
	choiceField("log.format", "form of the log",
		[]string{"text", "json"}, func(c *Config) *string { return &c.Log.Format }),
	pathField("log.directory", "directory for log files; empty: only standard error",
		false, func(c *Config) *string { return &c.Log.Directory }),
	sizeField("log.max_size", "size at which a log file is closed and the next one begun",
		"16MiB", MiB, 100*GiB, MiB, func(c *Config) *Bytes { return &c.Log.MaxSize }),
	countField("log.max_backups", "closed log files that are kept for each member",
		"files", 1, 1000, func(c *Config) *int { return &c.Log.MaxBackups }),
}

var byPath = func() map[string]*field {
	m := make(map[string]*field, len(fields))
	for _, f := range fields {
		m[f.path] = f
	}
	return m
}()
