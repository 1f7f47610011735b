// Package core decides what a member does: whom to follow, when to inherit,
// what is committed, whom to kill and whom to start. It is the only place
// where these rules stand.
//
// A Core is a state machine. Step takes the time and one Event and returns
// Effects, to be carried out in their order; their results come back as
// events. It has no clock, no I/O, no goroutine and no randomness but the
// source that it is given, so the same input always gives the same output and
// a simulator can run it a million times. One goroutine owns a Core.
//
// The caller's contract:
//
//   - Events are given in the order in which they happened; Tick is given at
//     the time that Wake names, after everything that was already waiting (so
//     that a heartbeat that lies in a queue is heard before the silence is
//     judged).
//   - Died is given only for a process that is certainly gone (its pidfd says
//     so), once per Watch.
//   - LockTaken is given only while the process holds cluster.lock, and the
//     lock is never released before the process ends.
//   - A follower opens no slot that succession.json names, asked while it holds the
//     slot's lock: a start that hung for long can find that its slot has become the
//     one that every write rests on, and free, for a moment.
//   - The first message of a leader's stream that a follower is told of is a Heard,
//     before any Received, so that the epoch of what comes is known.
//   - An entry is reported by Appended when a crash of the process can't lose it, and
//     by Synced when a crash of the host can't.
//
// What it guarantees in return is in docs/guarantees.md; in short: a Commit is
// an acknowledgement that every later leader's log begins with, and at most
// one living process ever carries out Lead.
//
// A member is in one of these roles, changed by Core.become and nowhere else:
//
//	              my turn                lock taken            inherited
//	following ------------> contending ------------> inheriting ---------> leading
//	    ^                       |
//	    +--- another leads -----+
package core
