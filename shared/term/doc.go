// Package term is how commands print to a terminal: colours where they are
// wanted, aligned tables, and text of others made harmless.
package term
