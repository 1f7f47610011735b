// Package sim runs the cores of all members of a cluster under one seeded
// scheduler, on a simulated kernel, disk and network, and breaks things.
//
// What it simulates is what the core relies on: processes that are killed,
// stopped and continued at any step; pidfds; a lock that only death frees; logs
// of which a part is synced; succession.json, replaced atomically; streams that
// deliver in order, late, or not at all; spawns that fail or hang; the loss of
// the host's power. The drivers in worker/ and supervisor/ are modelled after
// their contract with the core (see the core's doc.go), not after their code.
//
// A run has two phases. While faults are injected, an oracle checks what must
// never be violated: one leader, growing epochs, every acknowledged write in
// the log of every later leader, nothing applied anywhere that a leader did not
// commit. Then the faults stop, and within a bound of simulated time there must be
// one leader, all followers in sync, one roster, progress, and no process that
// nobody owns. The oracle shares no rule with the core: it has naive ones of its own.
//
// The same Config gives the same run, to the last step. A failed run says which
// seed it was and, run again with Trace, tells the story.
package sim
