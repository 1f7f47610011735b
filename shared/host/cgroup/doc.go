// Package cgroup creates control groups (v2) for groups of processes, limits them and kills
// them.
//
// A process cannot leave its group without write permission, so a group knows all descendants
// of a program, including daemons. Kill ends all of them at once, and no fork escapes it.
//
// Find says whether this process may create groups below its own. That is the case for root, in
// a unit with Delegate=yes of systemd, and in many containers. Otherwise the error is
// ErrUnavailable with the reason, and callers have to do without.
//
// The kernel allows no processes in a group whose children have limits. So Find moves the
// processes of a delegated group into a child group, named "members". It moves no processes of a
// group that it does not own; there, groups have no limits.
//
// The package needs Linux 5.14 (cgroup.kill) and a mounted cgroup2 file system.
package cgroup
