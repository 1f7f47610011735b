// Package events keeps what happened in a cluster: who was started, died, took
// over, was found silent, and so on, across takeovers and restarts.
//
// The history is a file of JSON lines in the data directory, which all members
// share, and its predecessor: the file is closed and begun anew when it reaches
// a bound. Beside it is a file of totals, so that counters need not begin at
// zero with each leader.
//
// A Recorder writes. It guarantees:
//
//   - Record waits for no disk. A goroutine writes, in order; what does not fit
//     into its bounded queue, or onto the disk, is lost, counted, and told by a
//     line of its own (Lost) once there is room again.
//   - A line is written by one append. One that was torn by a full disk or by
//     SIGKILL costs itself only: whoever writes next begins a new line, and
//     readers skip what is none.
//   - Nothing happens, nothing is written.
//   - A process that is killed loses nothing that it recorded a moment before:
//     the lines are in the kernel's page cache. Power loss may cost the last seconds.
//
// It needs one Recorder that leads (SetLeading) at a time: the holder of
// cluster.lock. Only that one begins files anew and writes the totals; any
// member may append.
//
// A Reader reads, also when nothing runs, and follows the file as it grows.
package events
