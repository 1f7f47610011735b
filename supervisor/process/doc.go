// Package process starts, adopts and ends processes. It does not know what they are for:
// replicas of the store, the user's programs, or an engine. The packages that use this one
// know that.
//
// StartProgram starts a user's program in a session of its own, and Instance finds and kills all of its
// processes.
//
// A Child is a process that this process starts and waits for as its parent. An Adopted is a
// process that an earlier leader started; it is held through a pidfd. Both keep running when
// this process exits.
//
// Package shared/rules/keeper decides when to start a process again. The Watches of
// shared/host/proc report deaths, because a death has to be noticed in the same way whichever
// process was the parent.
package process
