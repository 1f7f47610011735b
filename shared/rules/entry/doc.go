// Package entry defines the entries of the replicated log and the positions in it. It has no
// I/O, so the core and the simulator can use it without the log itself.
package entry
