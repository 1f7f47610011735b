// Package treeview prints the processes and services of a cluster as text, for `dynast tree`. The
// data comes from packages tree and ps; this package only formats it.
package treeview
