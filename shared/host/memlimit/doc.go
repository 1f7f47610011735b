// Package memlimit reads the memory limit of the control group of a process, and how much
// of it is in use.
//
// It supports cgroup v1 and v2, and takes the lowest limit of the group and all its
// ancestors. Anonymous and shared memory count as in use, because the kernel cannot take
// them back. The page cache counts against the limit too, but the kernel frees it by
// itself.
//
// The package needs /proc/self/cgroup and /proc/self/mountinfo. It writes nothing.
package memlimit
