// Package meter counts and times what happens often: clients' requests, syncs
// of the log. One observation is two additions without a lock, some ten
// nanoseconds; whoever reads takes a Snapshot, and the difference of two
// snapshots tells of the time between them.
//
// The numbers are one process's: they begin at zero with each leader.
package meter
