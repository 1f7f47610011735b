// Package supervisor starts, adopts and ends the followers of a leader.
//
// It carries out what the core decides, and decides nothing itself: the core says which slot
// gets a process, and when. This package handles ports and go-plugin. The processes
// themselves are the Child and Adopted types of package process, which knows nothing about
// replicas.
//
// A new follower is started through go-plugin. A custom runner sets what go-plugin leaves
// open: the follower gets its own process group, inherited listeners and the standard error
// of the first leader. A follower that an earlier leader started is adopted through
// go-plugin's Reattach, with a runner that holds a pidfd.
//
// The supervisor ends a process only when it is told to. When a leader exits, its followers
// keep running.
package supervisor
