package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// off is the word for no automatic compaction.
const off = "off"

// retentionField is a field that holds a number of revisions, a duration, or off.
func retentionField(path, usage string, mostRevisions int64, least, most time.Duration, at func(*Config) *AutoCompaction) *field[Config] {
	return &field[Config]{
		path: path, usage: usage, kind: "retention",
		allowed: fmt.Sprintf(`%q, a number of revisions in quotes from 1 to %d, for example "1000", or a duration with its unit from %s to %s, for example "1h"`,
			off, mostRevisions, duration(least), duration(most)),
		parse: func(c *Config, s string) error {
			a, err := parseRetention(s)
			if err == nil {
				*at(c) = a
			}
			return err
		},
		check: func(c *Config) error {
			switch a := *at(c); {
			case a == AutoCompaction{}:
				return nil
			case a.Revisions != 0 && a.Period != 0:
				return errors.New("both revisions and a duration")
			case a.Revisions != 0:
				return within(a.Revisions, 1, mostRevisions)
			default:
				return within(a.Period, least, most)
			}
		},
		text: func(c *Config) string { return at(c).String() },
	}
}

func parseRetention(s string) (AutoCompaction, error) {
	if s == off {
		return AutoCompaction{}, nil
	}
	if s != "" && strings.Trim(s, "0123456789") == "" {
		n, err := strconv.ParseInt(s, 10, 64)
		switch {
		case err != nil:
			return AutoCompaction{}, errors.New("too large")
		case n == 0:
			return AutoCompaction{}, errors.New("too small")
		}
		return AutoCompaction{Revisions: n}, nil
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil && strings.Trim(s, "0123456789.") == s:
		return AutoCompaction{}, errors.New("unknown word")
	case err != nil:
		return AutoCompaction{}, durationError(s)
	case d == 0:
		return AutoCompaction{}, errors.New("too small")
	}
	return AutoCompaction{Period: d}, nil
}

// String returns the retention as it is written in a file.
func (a AutoCompaction) String() string {
	switch {
	case a.Revisions != 0:
		return strconv.FormatInt(a.Revisions, 10)
	case a.Period != 0:
		return duration(a.Period)
	}
	return off
}
