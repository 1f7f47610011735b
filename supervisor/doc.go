// Package supervisor starts, adopts and ends the processes of a leader.
//
// It carries out what the core decides and decides nothing itself: which slot
// gets a process and when is told to it; ports, go-plugin and the handling of
// processes are its own. A process is started through go-plugin with a runner
// that owns the details which go-plugin leaves open (its own process group, inherited
// listeners, standard error of the first leader); one that an earlier leader
// started is adopted through go-plugin's Reattach with a runner on a pidfd.
//
// It never ends a process that it was not told to end: a leader that goes away
// leaves its followers as they are.
package supervisor
