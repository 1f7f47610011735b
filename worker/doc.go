// Package worker is what every process of a cluster runs. It holds the life of a member: the
// start (boot.go for the order, join.go, listen.go, signals.go), the loop, the takeover,
// reloads, and the end. The work itself is done in packages below it:
//
//   - replica: the member's copy of the data, with the writer, syncer and applier;
//   - link: the streams to other members;
//   - serve: clients, while this member leads;
//   - operate: commands, the dashboard, the service manager, joining processes;
//   - files: the limit of open files, divided among the listeners;
//   - state: what these packages share.
//
// Member creates the parts and gives each part what it needs from the others (member.go). No
// part holds the Member.
//
// Package shared/rules/core makes the decisions. This package carries out the effects
// (effects.go) and reports the results as events. One goroutine at a time feeds the core.
// Usually that is the loop. For the few events that every write waits for, the goroutine with
// the event feeds the core itself (loop.Feed). Carrying out an effect never waits for a disk
// or for another process.
//
// An error that a member cannot handle ends the process and is logged (state.Fate). The
// leader's supervisor then replaces the process.
package worker
