// Package health asks a program how it is: with a request over HTTP, gRPC or TCP, or with a
// command. It also reads what programs report by themselves on the notify socket of sd_notify(3).
//
// It only reports results. Package shared/rules/services decides what follows from them.
//
// # Checks
//
// Probe makes one attempt, which ends at the timeout of the check. Watch repeats attempts until
// its context ends. An attempt of an exec check runs in a process group of its own, and the whole
// group is killed at the timeout. A command that ends in time may leave processes behind, because
// the command of a reload may start some. Their output never delays the result.
//
// # Notifications
//
// All members share the notify socket, and only the leader reads it. A datagram that arrives
// while no leader runs stays in the queue of the socket, with the sender's pid, for the next
// leader. The kernel bounds this queue by a number of datagrams (net.unix.max_dgram_qlen, often
// 10 or 512) and not by SO_RCVBUF. A sender that finds the queue full waits until a leader reads.
// Therefore the function that gets the messages must be quick.
//
// A program that sends BARRIER=1 waits until the descriptor that it sent along is closed. The
// reader closes it after it has handed over everything that was sent before.
package health
