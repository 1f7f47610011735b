// Package logview reads what package logging wrote: the log files of all
// members of a cluster, merged by time, over rotations and takeovers, in either
// of the two forms and printed in either.
//
// It guarantees:
//
//   - Every line is shown. One that is no log line, like the stack dump of a
//     runtime, belongs to the entry before it.
//   - Memory does not grow with the files: they are read as they are merged.
//   - Follow misses nothing when a file is rotated.
//
// It needs the files of one member to be in the order of their times, but for
// a few lines.
package logview
