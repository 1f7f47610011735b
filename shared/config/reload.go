package config

import (
	"encoding/json"
	"fmt"
)

// reloadable holds the fields that can change while the members run. All others need a restart.
var reloadable = map[string]bool{
	"client.watch_progress_interval": true,
	"followers":                      true,
	"client.cert_file":               true, // but not from or to empty: see Merge
	"client.key_file":                true,
	"client.client_ca_file":          true,
	"replication.min_sync":           true,
	"replication.queue_requests":     true,
	"replication.queue_bytes":        true,
	"store.disk_reserve":             true,
	"store.auto_compaction":          true,
	"spawn.timeout":                  true,
	"log.level":                      true,
}

// Change is a field whose value has changed.
type Change struct{ Path, Before, After string }

// Merge returns c with those fields of next that can change while the members run. changed
// holds the fields that are different now. restart holds the fields of next that need a restart
// and keep c's values. The services are those of next; DiffServices compares them. Merge returns an error if the result would be invalid. It never changes c.
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
		if !reloadable[f.path] || turnsTLS {
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
	merged.Services = cloneServices(next.Services)
	if err := merged.Validate(); err != nil {
		return nil, nil, nil, fmt.Errorf("the changes that need no restart are invalid without the others: %w", err)
	}
	return merged, changed, restart, nil
}

// Source says where a configuration comes from, so that any later leader can read it again.
type Source struct {
	// File is an absolute path, or empty for the defaults alone.
	File string `json:"file,omitempty"`
	// Flags are the values given on the command line, by the fields' paths.
	Flags map[string]string `json:"flags,omitempty"`
}

// Source returns where c was read from, with c's values for the given flags, in which paths are
// absolute. file must be absolute or empty.
func (f *Flags) Source(file string, c *Config) Source {
	s := Source{File: file, Flags: map[string]string{}}
	for _, v := range f.values {
		if v.isSet {
			s.Flags[v.field.path] = v.field.text(c)
		}
	}
	return s
}

// String returns the form that ParseSource reads.
func (s Source) String() string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("config: cannot marshal strings: %v", err))
	}
	return string(b)
}

// ParseSource reads what String wrote.
func ParseSource(text string) (Source, error) {
	var s Source
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return s, fmt.Errorf("parse the configuration's source: %w: %w", ErrInvalid, err)
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
