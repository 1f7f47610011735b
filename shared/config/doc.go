// Package config reads the configuration: config.hcl, an operator's own file
// over it, and flags over both.
//
// It guarantees that a Config which it hands out without an error is complete
// and consistent: every field is in its range, paths are absolute, and fields
// that depend on one another fit. What is wrong is refused with file, line,
// column, the offending text and what is allowed, and everything that is
// wrong is reported at once. A refusal satisfies errors.Is(err, ErrInvalid).
//
// The fields are one table (fields.go). The file format, the flags, the
// checks and the form in which a leader passes its configuration on to the
// workers that it spawns are all made from it, so they cannot drift apart.
//
// It needs the text of config.hcl from the caller (main embeds it) and, to make
// relative paths absolute, the working directory and the home directory of
// the process. A path is made absolute where it is first read: a spawned
// worker gets the leader's paths, whatever its own working directory is.
package config
