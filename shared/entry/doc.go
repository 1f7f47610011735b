// Package entry defines what the replicated log holds and how a place in it
// is named. Pure values: whoever reasons about the log (the core, the
// simulator) uses them without the log's I/O.
package entry
