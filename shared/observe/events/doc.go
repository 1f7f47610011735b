// Package events records what happens in a cluster, across takeovers and restarts: which
// process was started, died, took over, was found silent, and so on.
//
// The history is a file of JSON lines in the data directory, which all members share, and
// the file before it: when the file reaches a size limit, it is closed and a new one is
// begun. Beside it is a file of totals, so that counters do not begin at zero with each
// leader.
//
// A Recorder writes. It guarantees:
//
//   - Record does not wait for the disk. A goroutine writes the events in order. Events
//     that do not fit into its bounded queue or onto the disk are lost and counted. An
//     event of kind Lost reports them once there is room again.
//   - Each write appends whole lines. A line that a full disk or a SIGKILL cuts off is the
//     only loss: the next writer begins a new line, and readers skip malformed lines.
//   - Nothing is written while nothing happens.
//   - A killed process loses no event that was already written, because the page cache
//     keeps it. A power loss may lose the last seconds.
//
// At most one Recorder may be leading at a time (SetLeading), that of the holder of
// cluster.lock. Only it begins new files and writes the totals. Any member may append.
//
// A Reader reads the events, also when no member runs, and follows the file as it grows.
package events
