package config

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// within returns an error if a value is out of its range.
func within[T cmp.Ordered](v, least, most T) error {
	if v < least {
		return errors.New("too small")
	}
	if v > most {
		return errors.New("too large")
	}
	return nil
}

func countField[T any](path, usage, unit string, least, most int, at func(*T) *int) *field[T] {
	return &field[T]{
		path: path, usage: usage, kind: "number", number: true,
		allowed: fmt.Sprintf("a whole number of %s from %d to %d, for example %s = %d",
			unit, least, most, leaf(path), least+1),
		parse: func(c *T, s string) error {
			n, err := strconv.Atoi(s)
			if errors.Is(err, strconv.ErrRange) {
				return errors.New("too large or too small")
			}
			if err != nil {
				return errors.New("not a whole number")
			}
			*at(c) = n
			return nil
		},
		check: func(c *T) error { return within(*at(c), least, most) },
		text:  func(c *T) string { return strconv.Itoa(*at(c)) },
	}
}

func durationField[T any](path, usage, example string, least, most time.Duration, at func(*T) *time.Duration) *field[T] {
	return &field[T]{
		path: path, usage: usage, kind: "duration",
		allowed: fmt.Sprintf("a duration with its unit (ns, us, ms, s, m, h) from %s to %s, for example %q",
			duration(least), duration(most), example),
		parse: func(c *T, s string) error {
			d, err := time.ParseDuration(s)
			if err != nil {
				return durationError(s)
			}
			// time.ParseDuration accepts the number "0" without a unit.
			if s = strings.TrimLeft(s, "+-"); strings.Trim(s, "0") == "" {
				return errors.New("the unit is missing")
			}
			*at(c) = d
			return nil
		},
		check: func(c *T) error { return within(*at(c), least, most) },
		text:  func(c *T) string { return duration(*at(c)) },
	}
}

// durationError explains, in the words of this package, what time.ParseDuration refused.
func durationError(s string) error {
	unit := strings.TrimLeft(s, "+-0123456789.")
	switch {
	case unit == s || s == "":
		return errors.New("not a duration")
	case unit == "":
		return errors.New("the unit is missing")
	}
	unit = strings.TrimSpace(strings.TrimRight(unit, "0123456789."))
	if slices.Contains([]string{"ns", "us", "µs", "ms", "s", "m", "h"}, unit) {
		return errors.New("not a duration")
	}
	return fmt.Errorf("unknown unit %q", unit)
}

func sizeField[T any](path, usage, example string, least, most, step Bytes, at func(*T) *Bytes) *field[T] {
	whole := ""
	if step > 1 {
		whole = ", a multiple of " + step.String()
	}
	return &field[T]{
		path: path, usage: usage, kind: "size",
		allowed: fmt.Sprintf("a size with its unit (B, KiB, MiB, GiB, TiB) from %s to %s%s, for example %q",
			least, most, whole, example),
		parse: func(c *T, s string) error {
			b, err := ParseBytes(s)
			if err != nil {
				return err
			}
			*at(c) = b
			return nil
		},
		check: func(c *T) error {
			if *at(c)%step != 0 {
				return fmt.Errorf("not a multiple of %s", step)
			}
			return within(*at(c), least, most)
		},
		text: func(c *T) string { return at(c).String() },
	}
}

func choiceField[T any, W ~string](path, usage string, choices []W, at func(*T) *W) *field[T] {
	words := make([]string, len(choices))
	for i, c := range choices {
		words[i] = string(c)
	}
	return &field[T]{
		path: path, usage: usage + ": " + strings.Join(words, ", "), kind: "word",
		allowed: "one of " + quoted(words),
		parse:   func(c *T, s string) error { *at(c) = W(s); return nil },
		check: func(c *T) error {
			if slices.Contains(choices, *at(c)) {
				return nil
			}
			return unknown(string(*at(c)), words)
		},
		text: func(c *T) string { return string(*at(c)) },
	}
}

func endpointField[T any](path, usage string, at func(*T) *string) *field[T] {
	return &field[T]{
		path: path, usage: usage, kind: "ip:port",
		allowed: `IP:PORT with a port from 1 to 65535, for example "127.0.0.1:2379"`,
		parse: func(c *T, s string) error {
			a, err := parseEndpoint(s)
			if err != nil {
				return err
			}
			*at(c) = a.String()
			return nil
		},
		check: func(c *T) error { _, err := parseEndpoint(*at(c)); return err },
		text:  func(c *T) string { return *at(c) },
	}
}

// parseEndpoint accepts no host names. A name can mean something else for a later leader, while
// the listening socket stays the same.
func parseEndpoint(s string) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(s)
	if err == nil && a.Port() != 0 {
		return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), nil
	}
	colon := strings.LastIndexByte(s, ':')
	switch {
	case err == nil:
		return a, errors.New("port 0 is not a fixed port")
	case colon < 0 || strings.HasSuffix(s, "]"):
		return a, errors.New("the port is missing")
	case colon == 0:
		return a, fmt.Errorf("the IP address is missing; for all addresses of this host write %q", "0.0.0.0"+s)
	}
	if _, err := netip.ParseAddr(strings.Trim(s[:colon], "[]")); err != nil {
		return a, fmt.Errorf("%q is not an IP address (host names are not looked up)", s[:colon])
	}
	return a, errors.New("not an IP address with a port")
}

// optionalEndpointField is an endpointField that can be switched off.
func optionalEndpointField[T any](path, usage string, at func(*T) *string) *field[T] {
	f := endpointField(path, usage, at)
	parse, check := f.parse, f.check
	f.kind = "ip:port"
	f.allowed = `IP:PORT with a port from 1 to 65535, for example "127.0.0.1:2381", or "off"`
	f.parse = func(c *T, s string) error {
		if s == Off {
			*at(c) = Off
			return nil
		}
		return parse(c, s)
	}
	f.check = func(c *T) error {
		if *at(c) == Off {
			return nil
		}
		return check(c)
	}
	return f
}

func hostField[T any](path, usage string, at func(*T) *string) *field[T] {
	return &field[T]{
		path: path, usage: usage, kind: "ip",
		allowed: `the IP address of one network interface, for example "127.0.0.1"`,
		parse: func(c *T, s string) error {
			a, err := parseHost(s)
			if err != nil {
				return err
			}
			*at(c) = a.String()
			return nil
		},
		check: func(c *T) error { _, err := parseHost(*at(c)); return err },
		text:  func(c *T) string { return *at(c) },
	}
}

func parseHost(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return a, errors.New("not an IP address (host names are not looked up)")
	case a.Unmap().IsUnspecified():
		return a, errors.New("a wildcard address does not identify a member")
	case a.Unmap().IsMulticast():
		return a, errors.New("a multicast address does not identify a member")
	}
	return a.Unmap(), nil
}

func portsField[T any](path, usage string, at func(*T) *PortRange) *field[T] {
	return &field[T]{
		path: path, usage: usage, kind: "first-last",
		allowed: `FIRST-LAST with ports from 1 to 65535, for example "7400-7499"`,
		parse: func(c *T, s string) error {
			first, last, ok := strings.Cut(s, "-")
			if !ok {
				return errors.New("not a range")
			}
			a, errA := strconv.Atoi(first)
			b, errB := strconv.Atoi(last)
			if errA != nil || errB != nil {
				return errors.New("not a range of ports")
			}
			*at(c) = PortRange{a, b}
			return nil
		},
		check: func(c *T) error {
			r := *at(c)
			if err := errors.Join(within(r.First, 1, 65535), within(r.Last, 1, 65535)); err != nil {
				return errors.New("a port is out of range")
			}
			if r.First > r.Last {
				return errors.New("the first port is above the last")
			}
			return nil
		},
		text: func(c *T) string { return fmt.Sprintf("%d-%d", at(c).First, at(c).Last) },
	}
}

func pathField[T any](path, usage string, required bool, at func(*T) *string) *field[T] {
	allowed := `a path; it may start with "~/"`
	if !required {
		allowed += `, and "" means none`
	}
	return &field[T]{
		path: path, usage: usage, kind: "path", allowed: allowed,
		parse: func(c *T, s string) error {
			// The text is passed to workers and put into messages as UTF-8.
			if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
				return errors.New("not valid UTF-8, or it contains a zero byte")
			}
			abs, err := absolute(s)
			if err == nil {
				*at(c) = abs
			}
			return err
		},
		check: func(c *T) error {
			switch p := *at(c); {
			case p == "" && required:
				return errors.New("empty")
			case p != "" && !filepath.IsAbs(p):
				return errors.New("not absolute")
			}
			return nil
		},
		text: func(c *T) string { return *at(c) },
	}
}

func absolute(p string) (string, error) {
	switch {
	case p == "":
		return "", nil
	case strings.ContainsRune(p, 0):
		return "", errors.New("it contains a zero byte")
	case p == "~" || strings.HasPrefix(p, "~/"):
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("cannot find the home directory for ~: %w", err)
		}
		p = filepath.Join(home, p[1:])
	case p[0] == '~':
		return "", errors.New(`only "~/" is expanded, not another user's home; for a file with that name write "./~..."`)
	}
	abs, err := filepath.Abs(p)
	if err != nil {
		return "", fmt.Errorf("make it absolute: %w", err)
	}
	return abs, nil
}

// leaf returns the last part of a path: timeout of heartbeat.timeout.
func leaf(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

func quoted(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = strconv.Quote(w)
	}
	return strings.Join(out, ", ")
}

// optionalPathField is a path that has a default if it is empty, and can be switched off.
func optionalPathField(path, usage string, at func(*Config) *string) *field[Config] {
	f := pathField(path, usage, false, at)
	parse, check := f.parse, f.check
	f.allowed = `a path; it may start with "~/", "" means the default, and "off" means none`
	f.parse = func(c *Config, s string) error {
		if s == Off {
			*at(c) = Off
			return nil
		}
		return parse(c, s)
	}
	f.check = func(c *Config) error {
		if *at(c) == Off {
			return nil
		}
		return check(c)
	}
	return f
}
