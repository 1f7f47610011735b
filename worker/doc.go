// Package worker is what every member runs: it owns a slot, follows a leader,
// replicates, inherits and serves.
//
// Decisions are made in shared/core; this package carries them out and
// reports what came of it. One goroutine at a time feeds the core: the loop, or who
// brings an event that a write waits for (postNow). Around it, each with one job
// and a queue:
//
//   - the writer owns the log: it appends what clients propose (leading) or
//     what the leader sends (following), and does the steps of a takeover;
//   - the syncer makes the log durable;
//   - the applier feeds what is committed to the store and answers clients;
//   - the follow stream up to the leader, or a session down to each follower;
//   - watches, one for each process whose death matters.
//
// None of them waits for another process while holding something that the
// loop needs, and no gRPC handler makes a gRPC call: handlers hand an event to
// the loop and wait. So a takeover cannot be held up by requests in flight.
//
// The package ends the process rather than guess: whatever cannot be accounted
// for leads to an exit with a reason, and the supervisor replaces the process.
package worker
