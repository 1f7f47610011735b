// Package core decides what a member does: which leader it follows, when it
// takes over, which entries are committed, which processes it kills and which
// it starts. These rules are in this package and nowhere else.
//
// A Core is a state machine. Step takes the time and one Event, and returns a
// list of Effects. The caller carries the effects out in order and reports
// their results as further events. A Core has no clock, no I/O and no
// goroutines, and its only source of randomness is the one that it is given.
// The same input therefore always gives the same output, and a simulator can
// run a Core a million times. One goroutine owns a Core.
//
// The caller must keep these rules:
//
//   - It gives events in the order in which they happened. It gives Tick at the
//     time that Wake returns, after every event that was already waiting. A
//     heartbeat that lies in a queue is thus counted before the Core judges how
//     long the sender was silent.
//   - It gives Died only for a process that is certainly gone, because its pidfd
//     says so, and only once per Watch.
//   - It gives LockTaken only while the process holds cluster.lock. It never
//     releases the lock before the process ends.
//   - A follower that has locked a slot checks succession.json before it opens the
//     slot. It must not open a slot that succession.json names. After a start that
//     hung for long, the slot can have become the one that holds every acknowledged
//     write, and it can be unlocked for a moment.
//   - The first event that a follower gets from a leader's stream is a Heard. No
//     Received comes before it, so the Core knows the epoch of the entries.
//   - It reports an entry with Appended when a crash of the process can no longer lose
//     it, and with Synced when a crash of the host can no longer lose it.
//
// docs/guarantees.md lists what the package guarantees in return. In short: every
// later leader's log begins with all entries that a Commit acknowledged, and at
// most one living process ever carries out Lead.
//
// A member has one of these roles. Only Core.become changes the role:
//
//	              my turn                lock taken            took over
//	following ------------> contending ------------> inheriting ---------> leading
//	    ^                       |
//	    +--- another leads -----+
package core
