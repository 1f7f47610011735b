package config

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// Flags are the command line's overrides of a configuration.
type Flags struct{ values []*flagValue }

// flagValue is the flag of one field. It checks a value when it is given, so
// that the refusal names the flag.
type flagValue struct {
	field *field
	given string
	isSet bool
}

// FlagName is the flag of a field: heartbeat.timeout is heartbeat-timeout.
func FlagName(path string) string {
	return strings.NewReplacer(".", "-", "_", "-").Replace(path)
}

// BindFlags registers a flag for every field. Their defaults are not shown in
// the help: without a flag, it is the file that decides.
func BindFlags(fs *pflag.FlagSet) *Flags {
	f := &Flags{}
	for _, field := range fields {
		v := &flagValue{field: field}
		f.values = append(f.values, v)
		fs.Var(v, FlagName(field.path), field.usage)
	}
	return f
}

// Apply puts the flags that were given over a configuration and checks the
// result; c is unchanged if that fails.
func (f *Flags) Apply(c *Config) error {
	next := c.clone()
	var e Error
	for _, v := range f.values {
		if !v.isSet {
			continue
		}
		name := "--" + FlagName(v.field.path)
		if err := v.field.set(next, v.given); err != nil {
			e.add(nil, "%s %s: %v; want %s", name, clip(v.given), err, v.field.allowed)
			continue
		}
		next.setFrom(v.field.path, name)
	}
	if err := e.orNil(); err != nil {
		return err
	}
	if err := next.Validate(); err != nil {
		return err
	}
	*c = *next
	return nil
}

// String is empty unless the flag was given: pflag then shows no default.
func (v *flagValue) String() string { return v.given }

// Type is the word for the value in the help.
func (v *flagValue) Type() string { return v.field.kind }

// Set is called by pflag, which puts the name of the flag before the error.
func (v *flagValue) Set(text string) error {
	if err := v.field.set(&Config{}, text); err != nil {
		return fmt.Errorf("%w%w; want %s", silent{ErrInvalid}, err, v.field.allowed)
	}
	v.given, v.isSet = text, true
	return nil
}

// silent wraps an error for errors.Is without a text of its own.
type silent struct{ error }

func (silent) Error() string   { return "" }
func (s silent) Unwrap() error { return s.error }
