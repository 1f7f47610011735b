// Package services decides what happens to the instances of the user's services: when one is
// started, stopped, restarted or given up. These rules are in this package and nowhere else.
//
// A Core is a state machine, like the one in package core: Step takes the time and one Event and
// returns a list of Effects. The caller carries the effects out in order and reports their results
// as further events. A Core has no clock, no I/O and no goroutines. One goroutine owns a Core.
//
// The caller must keep these rules:
//
//   - Only the leader has a Core. It begins with Lead, which says what the caller found: every
//     saved record, and what is left of its processes.
//   - It gives events in the order in which they happened, and Tick at the time that Wake returns.
//   - It carries out Save before the effects that follow it. A record that is saved is found by
//     every later leader of the same boot. Start comes after a Save with the phase Starting, so no
//     process ever exists without a record. The process holds the lock of its instance from the
//     first instant.
//   - It gives Exited only if the main process is certainly dead, and Cleared only if no process
//     of the instance is left. After Start it gives exactly one of Started and StartFailed, and
//     StartFailed only if no process is left.
//   - It answers each Clear with one Cleared. There is one Clear at a time for an instance.
//   - It takes a notification from its socket only when the effects of it are carried out.
//     Otherwise the READY of a program is lost if the leader dies in between. A main process that
//     died after it had named another one (MAINPID) is no exit, even if nobody has read that yet.
//   - Times are those of a clock that all processes of one boot share (CLOCK_BOOTTIME), because
//     deadlines outlive the leader that set them.
//
// In return: an instance never has two processes, because Start is only returned while the phase
// is Idle, and a phase becomes Idle only after Cleared, StartFailed or a survey that found
// nothing. A process that runs is never ended because a leader changed, because Lead only adopts.
//
// An instance goes through these phases:
//
//	         Start               Started          stop is wanted
//	Idle ----------> Starting ------------> Up ------------------> Ending
//	  ^                 |                    | exited                | exited, or the
//	  |  StartFailed    |                    v                       v deadline passed
//	  +-----------------+                 Clearing <-----------------+
//	  +--------------------- Cleared -------+
//
// A program that says STOPPING=1 goes from Up to Ending, too. In Clearing, what is left of the
// process tree is killed.
package services
