// Package logview reads what package logging wrote: the log files of all members of a
// cluster, merged by time, across rotations and takeovers. It reads both formats and
// prints in either. It merges them with the output of the services' instances, which package
// output keeps.
//
// It guarantees:
//
//   - Every line is shown. A line that is not a log line, like a line of the runtime's
//     stack dump, belongs to the entry before it. Each line of an instance is an entry.
//   - The lines of an instance stay in order, whatever happens to the clock.
//   - Memory use does not grow with the files, because they are read while they are merged.
//   - Follow misses nothing when a file is rotated. It finds new members and instances within
//     a second.
//
// The lines of one member must be in the order of their times, except for a few.
package logview
