package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// ErrInvalid is in the chain of every refusal of a configuration: of a file, a flag or an
// encoded form.
var ErrInvalid = errors.New("invalid configuration")

// Error lists everything that is wrong with a configuration.
type Error struct {
	// Diagnostics are sorted by position. Subject is nil if the problem is not from a file.
	Diagnostics hcl.Diagnostics
}

// Error returns one line per problem, each with its position if it has one.
func (e *Error) Error() string {
	lines := make([]string, len(e.Diagnostics))
	for i, d := range e.Diagnostics {
		var b strings.Builder
		if s := d.Subject; s != nil {
			fmt.Fprintf(&b, "%s: ", position(*s))
		}
		b.WriteString(d.Summary)
		if d.Detail != "" {
			b.WriteString(": ")
			b.WriteString(d.Detail)
		}
		lines[i] = b.String()
	}
	return strings.Join(lines, "\n")
}

// Unwrap makes errors.Is(err, ErrInvalid) true.
func (e *Error) Unwrap() error { return ErrInvalid }

func (e *Error) add(at *hcl.Range, format string, args ...any) {
	e.Diagnostics = append(e.Diagnostics, &hcl.Diagnostic{
		Severity: hcl.DiagError, Subject: at, Summary: fmt.Sprintf(format, args...),
	})
}

// orNil returns e sorted, or nil if nothing is wrong.
func (e *Error) orNil() error {
	if len(e.Diagnostics) == 0 {
		return nil
	}
	slices.SortStableFunc(e.Diagnostics, func(a, b *hcl.Diagnostic) int {
		return cmp.Or(start(a)-start(b), cmp.Compare(a.Summary, b.Summary))
	})
	return e
}

func start(d *hcl.Diagnostic) int {
	if d.Subject == nil {
		return 0
	}
	return d.Subject.Start.Byte
}

func position(r hcl.Range) string {
	return fmt.Sprintf("%s:%d:%d", r.Filename, r.Start.Line, r.Start.Column)
}
