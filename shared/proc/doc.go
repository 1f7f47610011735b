// Package proc turns facts of the Linux kernel about processes, locks and
// descriptors into small values. Succession rests on these facts and not on
// timeouts:
//
//   - An Identity (pid and start time) names one process until the host
//     restarts, however often its pid is used again.
//   - A Process is a pidfd that was checked against an Identity: what it
//     signals, and whose death it reports, can be no other process. A process is
//     dead when the kernel says so, whether or not its parent has reaped it; a
//     stopped process is alive.
//   - A Lock is freed by the kernel when its owner is dead, and not before. See
//     TryLock for the one exception, which makes it late and never early.
//   - Files passed between processes are close-on-exec on arrival.
//
// It needs Linux 5.3 (pidfd_open) and a mounted /proc. Where a newer kernel can
// tell more (exit status of a process that is not a child: 6.15), the answer
// says whether it is known.
//
// What people are shown (Usage, WhoListens, Owner) is a best effort, is never
// waited for, and decides nothing.
package proc
