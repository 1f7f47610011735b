// Package member is the interface between the worker, which every member runs, and the
// supervisor, which only a leader needs. Neither imports the other. main connects them
// with the types of this package.
package member
