// Package term prints to a terminal. It has colours, if the user wants them, and aligned
// tables. It also replaces control characters in the text of others.
//
// It is written here because it is small: a few colours, and a table without borders.
// text/tabwriter counts the control sequences of colours as text, and cannot align single
// columns to the right. lipgloss and tablewriter are much larger than this package.
package term
