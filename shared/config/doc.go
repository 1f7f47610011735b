// Package config reads the configuration: config.hcl, then an operator's own file, then
// flags. Each overrides the one before.
//
// A Config that the package returns without an error is complete and consistent: every
// field is in its range, paths are absolute, and fields that depend on each other fit. An
// invalid configuration is refused with file, line, column, the offending text and what is
// allowed. All errors are reported at once. A refusal satisfies
// errors.Is(err, ErrInvalid).
//
// The fields form one table (fields.go). The file format, the flags, the checks, and the
// form in which a leader passes its configuration to its workers are all made from this
// table, so they cannot diverge.
//
// The nearest known name is offered for an unknown one with agext/levenshtein, which HCL
// depends on anyway; cobra's suggestions are for names of commands only.
//
// The caller provides the text of config.hcl, which main embeds. To make relative paths
// absolute, the package uses the working directory and the home directory of the process.
// A path is made absolute where it is first read. So a worker gets the leader's paths,
// whatever its own working directory is.
package config
