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
// one JSON object with the path and the text of each field, sorted. Equal configurations have
// equal encodings.
func (c *Config) Encode() []byte {
	m := make(map[string]string, len(fields))
	for _, f := range fields {
		m[f.path] = f.text(c)
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
	d := json.NewDecoder(bytes.NewReader(src))
	given, err := decodeObject(d)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("text after the end")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("decode configuration: %w: %w", ErrInvalid, err)
	}
	c := &Config{}
	var e Error
	for _, path := range slices.Sorted(maps.Keys(given)) {
		f := byPath[path]
		if f == nil {
			e.add(nil, "unknown field %q", path)
		} else if err := f.set(c, given[path]); err != nil {
			e.add(nil, "%s = %q: %v; want %s", path, given[path], err, f.allowed)
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

// decodeObject reads a JSON object whose values are strings. It refuses a name that is given
// twice; with encoding/json alone the last one would win.
func decodeObject(d *json.Decoder) (map[string]string, error) {
	open, err := d.Token()
	if err != nil {
		return nil, err
	}
	if open != json.Delim('{') {
		return nil, fmt.Errorf("found %v in place of an object", open)
	}
	m := map[string]string{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		var text string
		if err := d.Decode(&text); err != nil {
			return nil, fmt.Errorf("%v: %w", name, err)
		}
		if _, twice := m[name.(string)]; twice {
			return nil, fmt.Errorf("%v is given twice", name)
		}
		m[name.(string)] = text
	}
	_, err = d.Token()
	return m, err
}
