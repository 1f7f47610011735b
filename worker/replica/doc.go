// Package replica is a member's copy of the data: the slot that it owns, with a log and a
// store, and the goroutines that work on them.
//
// Each goroutine has one job:
//
//   - the writer owns the log. In a leader it appends the proposals of clients, in a follower
//     the entries from the leader. It also does the steps of a takeover that change the log or
//     the slot.
//   - the syncer makes the log durable, one fsync at a time.
//   - the applier applies committed entries to the store, in order, and answers the clients.
//   - readAhead, in the heir, reads the leader's log ahead of a takeover.
//   - the comparison, in a leader, compares the followers' keys with its own from time to time.
//
// A snapshot or a takeover exchanges the open copy as a whole. A caller that uses the copy
// across several calls holds it (Hold). An exchange waits until no caller holds the copy.
//
// Results go to the core as events, through state.Loop. The package makes no decisions:
// shared/rules/core decides which log is adopted, which epoch begins and what is committed.
package replica
