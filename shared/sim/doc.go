// Package sim runs the cores of all members of a cluster under one seeded
// scheduler, on a simulated kernel, disk and network, and breaks things.
//
// What it simulates is what the core relies on: processes that are killed,
// stopped and continued at any step; pidfds; a lock that only death frees; logs
// of which a part is synced, and that can be damaged; a disk that is slow, full, or
// refuses to sync; succession.json, replaced atomically; streams that
// deliver in order, late, or not at all; spawns that fail or hang; the loss of
// the host's power. The drivers in worker/ and supervisor/ are modelled after
// their contract with the core (see the core's doc.go) and, where they read what others
// left on the disk, after what they do. Operators hand over, scale, remove, defragment,
// upgrade and stop in the middle of all that.
//
// A run has two phases. While faults are injected, an oracle checks what must
// never be violated: one leader, growing epochs, every acknowledged write in
// the log of every later leader, nothing applied anywhere that a leader did not
// commit, one roster with the line of succession that the rule says. Then the
// faults stop, and within a bound of simulated time and of steps there must be
// one leader, all followers in sync, one roster, progress, and no process that
// nobody owns. The oracle shares no rule with the core: it has naive ones of its own.
//
// The same Config gives the same run, to the last step. A failed run says which
// seed it was and, run again with Trace, tells the story. A Search runs many.
// docs/testing.md is the manual.
package sim
