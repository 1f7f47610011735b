// Package member is the seam between the worker, which every member runs, and
// the supervisor, which only a leader needs. Neither imports the other; main
// joins them with the interfaces and values of this package.
package member
