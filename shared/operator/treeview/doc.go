// Package treeview prints the processes of a cluster as text, for `dynast tree`. The data comes
// from package tree; this package only formats it.
package treeview
