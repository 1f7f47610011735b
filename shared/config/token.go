package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// These are the kinds of tokens that users get when they log in, and the options of JWTs.
const (
	tokenSimple = "simple"
	tokenJWT    = "jwt"
)

var tokenOptions = []string{"sign-method", "priv-key", "pub-key", "ttl"}

func tokenField(path, usage string, at func(*Config) *string) *field[Config] {
	return &field[Config]{
		path: path, usage: usage, kind: "token",
		allowed: `"simple", or "jwt,sign-method=METHOD,priv-key=/FILE"`,
		parse:   func(c *Config, s string) error { *at(c) = s; return nil },
		check:   func(c *Config) error { return checkToken(*at(c)) },
		text:    func(c *Config) string { return *at(c) },
	}
}

// checkToken checks a kind of tokens without reading a file. Members run in working directories
// of their own, so paths must be absolute.
func checkToken(s string) error {
	kind, rest, more := strings.Cut(s, ",")
	switch {
	case kind != tokenSimple && kind != tokenJWT:
		return unknown(kind, []string{tokenSimple, tokenJWT})
	case kind == tokenSimple && more:
		return errors.New("simple tokens have no options")
	case kind == tokenSimple:
		return nil
	}
	seen := map[string]string{}
	for _, option := range strings.Split(rest, ",") {
		name, value, _ := strings.Cut(option, "=")
		if !slices.Contains(tokenOptions, name) {
			return unknown(name, tokenOptions)
		}
		if _, twice := seen[name]; twice || value == "" || strings.Contains(value, "=") {
			return fmt.Errorf("option %q needs one value", name)
		}
		seen[name] = value
	}
	for _, name := range []string{"priv-key", "pub-key"} {
		if p := seen[name]; p != "" && !filepath.IsAbs(p) {
			return fmt.Errorf("the path %s is not absolute", name)
		}
	}
	if ttl := seen["ttl"]; ttl != "" {
		if d, err := time.ParseDuration(ttl); err != nil || d <= 0 {
			return fmt.Errorf("ttl %q is not a positive duration", ttl)
		}
	}
	if seen["sign-method"] == "" {
		return errors.New("the option sign-method is missing")
	}
	return nil
}
