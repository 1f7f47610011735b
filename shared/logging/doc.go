// Package logging makes the loggers of a member, one per component, which
// survive their surroundings: a takeover, a terminal that closes, a pipe that
// nobody reads any more, a full disk.
//
// It guarantees:
//   - A log call waits for no device. It renders its line into a bounded queue
//     per output (standard error, and the member's file if there is one); a
//     goroutine per output writes. When a queue is full its oldest lines are
//     dropped, since the newest say why a process ended, and the number of the
//     lost is reported in their place once the output takes lines again. An
//     output that is stuck or broken does not hold up the other one.
//   - No output error ends or stalls the process: not EPIPE, EIO or ENOSPC, and
//     not SIGPIPE or SIGTTOU. Nor does a value that panics when it is printed.
//   - Every line carries the member's address and its epoch at that moment.
//   - Flush before an exit gives the last lines their time.
//   - Lines up to 4096 bytes are written in one piece, so the members that share
//     a terminal or a pipe don't tear each other's.
//
// It needs, as Options.Stderr, a descriptor that stays what it is: the
// standard error that the process was started with, which a supervisor passes
// on to the workers. It is duplicated and never set to non-blocking: that
// would change it for the operator's shell too. If it is a terminal, SIGTTOU
// is ignored from then on in the whole process: a worker's process group is in
// the background of that terminal and would be stopped by "stty tostop".
//
// Values given to With are rendered then, others when the line is logged; in both
// cases in the caller's goroutine.
package logging
