// Package psview prints the services of a cluster as a table.
package psview
