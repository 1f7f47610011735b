package config

import (
	"encoding/json"
	"fmt"
)

// live are the fields that can change while the members run; all others need a restart.
var live = map[string]bool{
	"followers":                  true,
	"client.cert_file":           true, // not from nor to empty: see Merge
	"client.key_file":            true,
	"client.client_ca_file":      true,
	"replication.min_sync":       true,
	"replication.queue_requests": true,
	"replication.queue_bytes":    true,
	"store.disk_reserve":         true,
	"store.auto_compaction":      true,
	"spawn.timeout":              true,
	"log.level":                  true,
}

// Live reports whether a field can change without a restart.
func Live(path string) bool { return live[path] }

// Change is a field whose value differs.
type Change struct{ Path, Before, After string }

// Merge returns c with those fields of next that can change while the members run. changed
// are the fields that are different now; restart are those of next that c keeps its own
// values of. The error tells that the result would not be valid; c is never changed.
func (c *Config) Merge(next *Config) (merged *Config, changed, restart []Change, err error) {
	merged = c.clone()
	tls := c.Client.TLS() == next.Client.TLS()
	for _, f := range fields {
		before, after := f.text(c), f.text(next)
		if before == after {
			continue
		}
		change := Change{Path: f.path, Before: before, After: after}
		turnsTLS := !tls && (f.path == "client.cert_file" || f.path == "client.key_file" || f.path == "client.client_ca_file")
		if !live[f.path] || turnsTLS {
			restart = append(restart, change)
			continue
		}
		if err := f.parse(merged, after); err != nil {
			return nil, nil, nil, fmt.Errorf("%s: %w", f.path, err)
		}
		if at, ok := next.sources[f.path]; ok {
			merged.setFrom(f.path, at)
		} else {
			delete(merged.sources, f.path)
		}
		changed = append(changed, change)
	}
	if err := merged.Validate(); err != nil {
		return nil, nil, nil, fmt.Errorf("without what needs a restart: %w", err)
	}
	return merged, changed, restart, nil
}

// Source is where a configuration comes from, for whoever reads it again: any
// later leader.
type Source struct {
	// File is an absolute path; empty: only the defaults.
	File string `json:"file,omitempty"`
	// Flags are the values given on the command line, by the fields' paths.
	Flags map[string]string `json:"flags,omitempty"`
}

// Source returns where c was read from, with the values of these flags as c has them: paths
// are absolute. file is absolute too, or empty.
func (f *Flags) Source(file string, c *Config) Source {
	s := Source{File: file, Flags: map[string]string{}}
	for _, v := range f.values {
		if v.isSet {
			s.Flags[v.field.path] = v.field.text(c)
		}
	}
	return s
}

// String is the form that ParseSource reads.
func (s Source) String() string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("config: strings that don't marshal: %v", err))
	}
	return string(b)
}

// ParseSource reads what String wrote.
func ParseSource(text string) (Source, error) {
	var s Source
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return s, fmt.Errorf("where the configuration comes from: %w: %w", ErrInvalid, err)
	}
	return s, nil
}

// Load reads the configuration again.
func (s Source) Load(defaults []byte) (*Config, error) {
	c, err := Load(s.File, defaults)
	if err != nil {
		return nil, err
	}
	f := &Flags{}
	for _, field := range fields {
		if text, ok := s.Flags[field.path]; ok {
			f.values = append(f.values, &flagValue{field: field, given: text, isSet: true})
		}
	}
	if err := f.Apply(c); err != nil {
		return nil, err
	}
	return c, nil
}
