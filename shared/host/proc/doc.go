// Package proc turns facts of the Linux kernel about processes, locks and descriptors
// into small values. The succession relies on these facts and not on timeouts:
//
//   - An Identity (pid and start time) names one process until the host restarts,
//     however often its pid is used again.
//   - A Process is a pidfd that was checked against an Identity. It signals no other
//     process, and reports the death of no other process. A process is dead when the
//     kernel says so, whether or not its parent has reaped it. A stopped process is
//     alive.
//   - The kernel frees a Lock when its owner is dead, and not before. TryLock describes
//     the one exception, which can make the release late but never early.
//   - Files passed between processes are close-on-exec when they arrive.
//
// The package needs Linux 5.3 (pidfd_open) and a mounted /proc. Some facts need a newer
// kernel, such as the exit status of a process that is not a child (6.15). There the
// answer says whether the fact is known.
//
// Facts that are shown to people (Usage, WhoListens, Owner) are a best effort. Nothing
// waits for them, and they decide nothing.
package proc
