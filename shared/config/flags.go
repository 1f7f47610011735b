package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Flags are the command line's overrides of a configuration.
type Flags struct{ values []*flagValue }

// flagValue is the flag of one field. It checks a value as soon as it is given, so that the
// error names the flag.
type flagValue struct {
	field *field[Config]
	given string
	isSet bool
	// variable is the environment variable that took the place of the flag, or empty.
	variable string
}

// FlagName returns the flag of a field: for heartbeat.timeout it is heartbeat-timeout.
func FlagName(path string) string {
	return strings.NewReplacer(".", "-", "_", "-").Replace(path)
}

// Fields returns the paths of all fields, in the order of config.hcl.
func Fields() []string {
	var paths []string
	for _, field := range fields {
		paths = append(paths, field.path)
	}
	return paths
}

// Text returns the value of a field as it is written, or an empty text if there is no such field.
func (c *Config) Text(path string) string {
	for _, field := range fields {
		if field.path == path {
			return field.text(c)
		}
	}
	return ""
}

// FieldOfFlag returns the field whose flag has a name, and whether there is one.
func FieldOfFlag(name string) (path string, ok bool) {
	for _, field := range fields {
		if FlagName(field.path) == name {
			return field.path, true
		}
	}
	return "", false
}

// BindFlags registers a flag for each field in paths, or for every field if there are none. The
// help shows no defaults, because without a flag the file decides.
func BindFlags(fs *pflag.FlagSet, paths ...string) *Flags {
	f := &Flags{}
	for _, field := range fields {
		if len(paths) > 0 && !slices.Contains(paths, field.path) {
			continue
		}
		v := &flagValue{field: field}
		f.values = append(f.values, v)
		fs.Var(v, FlagName(field.path), field.usage)
	}
	return f
}

// Given reports whether the flag of a field was given.
func (f *Flags) Given(path string) bool {
	return slices.ContainsFunc(f.values, func(v *flagValue) bool { return v.field.path == path && v.isSet })
}

// Apply applies the given flags to a configuration and checks the result. If that fails, c is
// unchanged.
func (f *Flags) Apply(c *Config) error {
	next := c.clone()
	var e Error
	for _, v := range f.values {
		if !v.isSet {
			continue
		}
		name := v.name()
		if err := v.field.set(next, v.given); err != nil {
			e.add(nil, "%s %s: %v; want %s", name, clip(v.given), err, v.field.allowed)
			continue
		}
		next.setFrom(v.field.path, name)
		if v.field.path == dataDirField {
			next.dataDirText = next.DataDir // a flag's path is made absolute for good
		}
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

// UseEnv makes the variable DYNAST_DATA_DIR take the place of the flag --data-dir, unless the flag or
// no variable is given.
func (f *Flags) UseEnv(getenv func(string) string) error {
	for _, v := range f.values {
		text := getenv(DataDirEnv)
		if v.field.path != dataDirField || v.isSet || text == "" {
			continue
		}
		v.variable = DataDirEnv
		if err := v.Set(text); err != nil {
			return fmt.Errorf("%s=%s: %w", DataDirEnv, clip(text), err)
		}
	}
	return nil
}

// name is what set the value, for messages.
func (v *flagValue) name() string {
	if v.variable != "" {
		return v.variable
	}
	return "--" + FlagName(v.field.path)
}

// String is empty unless the flag was given, so that pflag shows no default.
func (v *flagValue) String() string { return v.given }

// Type is the placeholder for the value in the help.
func (v *flagValue) Type() string { return v.field.kind }

// Set is called by pflag, which puts the flag's name before the error.
func (v *flagValue) Set(text string) error {
	if err := v.field.set(&Config{}, text); err != nil {
		return fmt.Errorf("%w%w; want %s", silent{ErrInvalid}, err, v.field.allowed)
	}
	v.given, v.isSet = text, true
	return nil
}

// silent wraps an error for errors.Is without adding a text.
type silent struct{ error }

func (silent) Error() string   { return "" }
func (s silent) Unwrap() error { return s.error }
