// Package logging makes the loggers of a member, one per component. They survive a
// takeover, a terminal that closes, a pipe that nobody reads any more, and a full disk.
//
// It guarantees:
//
//   - A log call does not wait for a device. It renders its line into a bounded queue per
//     output (standard error, and the member's file if there is one). A goroutine per
//     output writes. When a queue is full, its oldest lines are dropped, because the newest
//     tell why a process ended. The number of lost lines is reported in their place when
//     the output accepts lines again. A stuck or broken output does not hold up the other.
//   - No output error ends or stalls the process: not EPIPE, EIO or ENOSPC, and not SIGPIPE
//     or SIGTTOU. A value that panics when it is printed does not either.
//   - Every line carries the member's address and its current epoch.
//   - Flush before an exit gives the last lines time to be written.
//   - Lines up to 4096 bytes are written in one piece. So members that share a terminal or
//     a pipe do not tear each other's lines.
//
// Options.Stderr must be a descriptor that does not change: the standard error with which
// the process was started, and which a supervisor passes on to its workers. It is
// duplicated and never set to non-blocking mode, because that would change it for the
// operator's shell too. If it is a terminal, the whole process ignores SIGTTOU from then
// on. A worker's process group is in the background of that terminal, and "stty tostop"
// would stop it.
//
// Values given to With are rendered at once. Other values are rendered when the line is
// logged. Both happen in the caller's goroutine.
package logging
