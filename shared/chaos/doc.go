// Package chaos breaks a cluster of real processes on a seeded schedule while
// stock clients use it, and checks afterwards that what was promised held:
//
//   - every history of operations is linearizable, by porcupine (CheckLinear),
//     and revisions grow with real time (CheckRevisions);
//   - watches told each change exactly once, in order (CheckEvents, SameEvents);
//   - a lease that was kept alive never ended, one that was let go ended in time
//     (CheckLeases);
//   - all replicas hold the same (CompareReplicas);
//   - nothing is left behind, and nothing grows (Growth).
//
// The checks are functions over what was recorded, apart from the recording:
// tests feed them histories that are wrong and see each wrong found.
//
// Run needs a program to start, or a running cluster whose owner agrees. It
// writes below a prefix of its own (chaos/SEED/) and removes that in the end.
// It ends only processes that own the data directory, each by its pid and start
// time. What it starts is gone when it returns; only when a check failed, the
// data directory and the logs are kept.
package chaos
