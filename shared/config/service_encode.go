package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// The names under which Encode puts the services. A field's path is none of them.
const (
	keyServices        = "services"
	keyServiceDefaults = "service_defaults"
	// The names in the object of a service, besides the paths of its fields.
	keyName   = "name"
	keySource = "source"
)

// encodeServices returns a service as an object with the path and the text of each field that
// differs from the defaults, and the defaults themselves. So a thousand services stay small, and
// another build with other defaults reads the same services.
func encodeServices(services []Service) (defaults map[string]string, out []map[string]string) {
	base := NewService()
	defaults = serviceTexts(&base)
	maps.DeleteFunc(defaults, func(_, text string) bool { return text == "" })
	for i := range services {
		s := &services[i]
		m := serviceTexts(s)
		maps.DeleteFunc(m, func(path, text string) bool { return text == defaults[path] })
		m[keyName] = s.Name
		if s.Source != "" {
			m[keySource] = s.Source
		}
		out = append(out, m)
	}
	return defaults, out
}

func serviceTexts(s *Service) map[string]string {
	m := make(map[string]string, len(serviceFields))
	for _, f := range serviceFields {
		m[f.path] = f.text(s)
	}
	return m
}

// decodeServices reads what encodeServices wrote. Validate checks the rest.
func decodeServices(defaults, list json.RawMessage) ([]Service, error) {
	given, err := decodeWhole[string](defaults)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", keyServiceDefaults, err)
	}
	base := Service{Umask: -1}
	if err := base.setTexts(given); err != nil {
		return nil, fmt.Errorf("%s: %w", keyServiceDefaults, err)
	}
	d := json.NewDecoder(bytes.NewReader(list))
	if open, err := d.Token(); err != nil || open != json.Delim('[') {
		return nil, fmt.Errorf("%s: found %v in place of a list", keyServices, open)
	}
	var out []Service
	for d.More() {
		m, err := decodeObject[string](d)
		if err != nil {
			return nil, fmt.Errorf("service %d: %w", len(out)+1, err)
		}
		name, ok := m[keyName]
		if !ok {
			return nil, fmt.Errorf("service %d: the name is missing", len(out)+1)
		}
		s := base.clone()
		s.Name, s.Source = name, m[keySource]
		delete(m, keyName)
		delete(m, keySource)
		if err := s.setTexts(m); err != nil {
			return nil, fmt.Errorf("service %d: %w", len(out)+1, err)
		}
		out = append(out, s)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: an empty list", keyServices)
	}
	return out, nil
}

// setTexts stores fields. It does not check their ranges.
func (s *Service) setTexts(texts map[string]string) error {
	for _, path := range slices.Sorted(maps.Keys(texts)) {
		f := serviceByPath[path]
		if f == nil {
			return fmt.Errorf("unknown field %q", clip(path))
		}
		if err := f.parse(s, texts[path]); err != nil {
			return fmt.Errorf("%s = %s: %w; want %s", path, clip(texts[path]), err, f.allowed)
		}
	}
	return nil
}

func cloneServices(services []Service) []Service {
	if services == nil {
		return nil
	}
	out := make([]Service, len(services))
	for i := range services {
		out[i] = services[i].clone()
	}
	return out
}

// clone returns a copy that shares nothing with s.
func (s *Service) clone() Service {
	d := *s
	d.Command, d.Needs, d.After = slices.Clone(s.Command), slices.Clone(s.Needs), slices.Clone(s.After)
	d.Hosts.Names = slices.Clone(s.Hosts.Names)
	d.Env, d.Listen = maps.Clone(s.Env), slices.Clone(s.Listen)
	d.Ready, d.Alive = s.Ready.clone(), s.Alive.clone()
	d.Reload.Command = slices.Clone(s.Reload.Command)
	d.Security.DropCapabilities = slices.Clone(s.Security.DropCapabilities)
	return d
}

func (c *Check) clone() *Check {
	if c == nil {
		return nil
	}
	d := *c
	d.Command = slices.Clone(c.Command)
	return &d
}

// DiffServices returns the names of the services that only after has, that only before has, and
// that differ in a field. Source is not compared: it changes when lines above the block do. The
// names are in the order of after, and removed in the order of before.
func DiffServices(before, after []Service) (added, removed, changed []string) {
	old := make(map[string]*Service, len(before))
	for i := range before {
		old[before[i].Name] = &before[i]
	}
	for i := range after {
		s := &after[i]
		switch was := old[s.Name]; {
		case was == nil:
			added = append(added, s.Name)
		case !maps.Equal(serviceTexts(was), serviceTexts(s)):
			changed = append(changed, s.Name)
		}
		delete(old, s.Name)
	}
	for _, s := range before {
		if old[s.Name] != nil {
			removed = append(removed, s.Name)
		}
	}
	return added, removed, changed
}
