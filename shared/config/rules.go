package config

import (
	"fmt"
	"net/netip"
	"time"
)

// leastBeats is how many heartbeat intervals the timeout must cover. With fewer, one late
// heartbeat would end a healthy process.
const leastBeats = 3

// conflict is a violated rule between fields. paths[0] is the field that is most likely wrong.
type conflict struct {
	paths []string
	text  string
}

// leastHostBeats is how many heartbeats of the leading host fit at least into hosts.election. It is
// etcd's limit.
const leastHostBeats = 5

// conflicts checks the rules between fields. Each field is valid by itself.
func (c *Config) conflicts() []conflict {
	var out []conflict
	broken := func(paths []string, format string, args ...any) {
		out = append(out, conflict{paths, fmt.Sprintf(format, args...)})
	}
	if least := leastBeats * c.Heartbeat.Interval; c.Heartbeat.Timeout < least {
		broken([]string{"heartbeat.timeout", "heartbeat.interval"},
			"%s is too short for %s; want a timeout of at least %d intervals, that is %s",
			c.show("heartbeat.timeout"), c.show("heartbeat.interval"), leastBeats, duration(least))
	}
	if c.Replication.MinSync > c.Followers {
		broken([]string{"replication.min_sync", "followers"},
			"%s cannot be reached with %s; want min_sync to be at most followers",
			c.show("replication.min_sync"), c.show("followers"))
	}
	if c.Client.MaxRequest > c.Replication.QueueBytes {
		broken([]string{"client.max_request", "replication.queue_bytes"},
			"%s does not fit into %s; want max_request to be at most queue_bytes",
			c.show("client.max_request"), c.show("replication.queue_bytes"))
	}
	p := c.Member.Ports
	if have, need := p.Last-p.First+1, c.Followers+1; have < need {
		broken([]string{"member.ports", "followers"},
			"%s has too few ports for %s; want at least %d, one for each follower and one for the leader",
			c.show("member.ports"), c.show("followers"), need)
	}
	for _, path := range []string{"client.listen", "dashboard.listen"} {
		if c.portsOverlap(byPath[path].text(c)) {
			broken([]string{path, "member.ports", "member.host"},
				"%s is in the range of the members' addresses, %s on %s; want a port outside that range",
				c.show(path), c.show("member.ports"), c.show("member.host"))
		}
	}
	if c.Dashboard.Listen == c.Client.Listen {
		broken([]string{"dashboard.listen", "client.listen"},
			"%s is also the clients' address; want another one, or \"off\"", c.show("dashboard.listen"))
	}
	if least := leastHostBeats * c.Hosts.Heartbeat; c.Hosts.Election < least {
		broken([]string{"hosts.election", "hosts.heartbeat"},
			"%s is too short for %s; want at least %d heartbeats, that is %s",
			c.show("hosts.election"), c.show("hosts.heartbeat"), leastHostBeats, duration(least))
	}
	if c.Hosts.Join != "" && c.Hosts.TokenFile == "" {
		broken([]string{"hosts.join", "hosts.token_file"},
			"%s needs hosts.token_file; 'dynast hosts token' on that host makes a token", c.show("hosts.join"))
	}
	return append(out, c.tlsConflicts()...)
}

// tlsConflicts checks that no file for TLS is missing.
func (c *Config) tlsConflicts() []conflict {
	var out []conflict
	missing := func(given, lacks string) {
		out = append(out, conflict{[]string{given, lacks},
			fmt.Sprintf("%s needs %s; want both, or neither (no TLS)", c.show(given), lacks)})
	}
	switch cert, key, ca := c.Client.CertFile != "", c.Client.KeyFile != "", c.Client.ClientCAFile != ""; {
	case cert && !key:
		missing("client.cert_file", "client.key_file")
	case key && !cert:
		missing("client.key_file", "client.cert_file")
	case ca && !cert:
		missing("client.client_ca_file", "client.cert_file")
	}
	return out
}

// portsOverlap reports whether a member could get this address. "off" is no address.
func (c *Config) portsOverlap(listen string) bool {
	client, err := netip.ParseAddrPort(listen)
	if err != nil {
		return false
	}
	host, err := netip.ParseAddr(c.Member.Host)
	if err != nil {
		return false
	}
	port, ports := int(client.Port()), c.Member.Ports
	return (client.Addr().IsUnspecified() || client.Addr() == host) && ports.First <= port && port <= ports.Last
}

// show returns a field with its value and the value's origin.
func (c *Config) show(path string) string {
	s := path + " = " + byPath[path].text(c)
	switch source, set := c.sources[path]; {
	case set:
		return s + " (" + source + ")"
	case c.sources != nil:
		return s + " (default)"
	default:
		return s
	}
}

// setFrom records where a field was set.
func (c *Config) setFrom(path, source string) {
	if c.sources == nil {
		c.sources = map[string]string{}
	}
	c.sources[path] = source
}

// duration returns d as an operator would write it: 1m instead of 1m0s.
func duration(d time.Duration) string {
	s := d.String()
	if len(s) > 2 && s[len(s)-2:] == "0s" && s[len(s)-3] == 'm' {
		s = s[:len(s)-2]
	}
	if len(s) > 2 && s[len(s)-2:] == "0m" && s[len(s)-3] == 'h' {
		s = s[:len(s)-2]
	}
	return s
}
