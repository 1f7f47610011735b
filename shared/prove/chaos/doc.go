// Package chaos injects faults into a cluster of real processes on a seeded schedule, while stock
// clients use the cluster. Afterwards it checks the guarantees:
//
//   - Every history of operations is linearizable, which porcupine decides (CheckLinear), and
//     revisions grow with real time (CheckRevisions).
//   - Watches report each change exactly once, in order (CheckEvents, SameEvents).
//   - A lease that is kept alive never ends. A lease that is not renewed ends in time
//     (CheckLeases).
//   - All replicas hold the same data (CompareReplicas).
//   - Nothing is left behind, and descriptors and memory do not grow (CheckUsage).
//   - No instance of a service has two processes, is lost, or is restarted without a reason. Its
//     exit statuses are right, its output is complete, and its socket refuses no connection.
//
// The checks are functions over recorded data and separate from the recording. Tests pass wrong
// histories to them and expect each error to be found.
//
// Run needs a program to start, or a running cluster whose owner agrees. It writes below its own
// prefix (chaos/SEED/) and removes these keys at the end. It ends only processes that own the
// data directory and programs of its own services, and identifies each by pid and start time. When Run returns, everything that it
// started is gone. It keeps the data directory and the logs only if a check failed.
package chaos
