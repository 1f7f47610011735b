// Package sim runs the cores of all members of a cluster under one seeded scheduler, on a
// simulated kernel, disk and network, and injects faults.
//
// It simulates what the core relies on: processes that are killed, stopped and continued at any
// step; pidfds; a lock that only death releases; logs that are partly synced and can be damaged;
// a disk that is slow, full, or fails to sync; succession.json, which is replaced atomically;
// streams that deliver in order, late, or not at all; spawns that fail or hang; and power loss.
// The models of the drivers in worker/ and supervisor/ follow their contract with the core (see
// the core's doc.go). Where the drivers read what other processes left on the disk, the models
// follow the drivers' code. Meanwhile operators hand over, scale, remove, defragment, upgrade and
// stop.
//
// A run has two phases. In the first, faults are injected, and an oracle checks the rules that
// must always hold: there is one leader; epochs grow; every acknowledged write is in the log of
// every later leader; no member applies what a leader did not commit; there is one roster, with
// the right line of succession. Then the faults stop. Within a bound of simulated time and of
// steps there must be one leader, all followers in sync, one roster, progress, and no process
// without an owner. The oracle shares no code with the core. It has simple rules of its own.
//
// The same Config gives the same run, to the last step. A failed run reports its seed. Run again
// with Trace, it prints its transcript. A Search runs many seeds. docs/testing.md is the manual.
package sim
