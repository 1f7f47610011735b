package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
)

// Encode returns the form in which a leader passes its effective configuration to its workers:
// one JSON object with the path and the text of each field, and the services if there are any,
// sorted. Equal configurations have equal encodings.
func (c *Config) Encode() []byte {
	m := make(map[string]any, len(fields)+2)
	for _, f := range fields {
		m[f.path] = f.text(c)
	}
	if len(c.Services) > 0 {
		m[keyServiceDefaults], m[keyServices] = encodeServices(c.Services)
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("config: cannot marshal strings: %v", err))
	}
	return b
}

// Decode reads what Encode wrote. It refuses a field that is unknown, missing, given twice or
// not allowed.
func Decode(src []byte) (*Config, error) {
	given, err := decodeWhole[json.RawMessage](src)
	if err != nil {
		return nil, fmt.Errorf("decode configuration: %w: %w", ErrInvalid, err)
	}
	c := &Config{}
	var e Error
	defaults, list := given[keyServiceDefaults], given[keyServices]
	if defaults != nil || list != nil {
		if c.Services, err = decodeServices(defaults, list); err != nil {
			e.add(nil, "%v", err)
		}
		delete(given, keyServiceDefaults)
		delete(given, keyServices)
	}
	for _, path := range slices.Sorted(maps.Keys(given)) {
		f := byPath[path]
		if f == nil {
			e.add(nil, "unknown field %q", path)
			continue
		}
		var text string
		err := json.Unmarshal(given[path], &text)
		if err == nil {
			err = f.set(c, text)
		}
		if err != nil {
			e.add(nil, "%s = %s: %v; want %s", path, clip(string(given[path])), err, f.allowed)
		}
	}
	for _, f := range fields {
		if _, ok := given[f.path]; !ok {
			e.add(nil, "the field %s is missing", f.path)
		}
	}
	if err := e.orNil(); err != nil {
		return nil, fmt.Errorf("decode configuration: %w", err)
	}
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("decode configuration: %w", err)
	}
	return c, nil
}

// decodeWhole reads a JSON object that has nothing after it.
func decodeWhole[V any](src []byte) (map[string]V, error) {
	d := json.NewDecoder(bytes.NewReader(src))
	m, err := decodeObject[V](d)
	if err != nil {
		return nil, err
	}
	if _, more := d.Token(); !errors.Is(more, io.EOF) {
		return nil, errors.New("text after the end")
	}
	return m, nil
}

// decodeObject reads a JSON object whose values are all of one type. It refuses a name that is
// given twice; with encoding/json alone the last one would win.
func decodeObject[V any](d *json.Decoder) (map[string]V, error) {
	open, err := d.Token()
	if err != nil {
		return nil, err
	}
	if open != json.Delim('{') {
		return nil, fmt.Errorf("found %v in place of an object", open)
	}
	m := map[string]V{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		var v V
		if err := d.Decode(&v); err != nil {
			return nil, fmt.Errorf("%v: %w", name, err)
		}
		if _, twice := m[name.(string)]; twice {
			return nil, fmt.Errorf("%v is given twice", name)
		}
		m[name.(string)] = v
	}
	_, err = d.Token()
	return m, err
}
