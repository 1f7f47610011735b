// Package services runs the rules for the user's services (package shared/rules/services) on a
// simulated kernel and a simulated driver, and injects faults.
//
// The kernel has processes that exit, crash, hang, fork daemons, close their descriptors, ignore
// SIGTERM, become ready late or never, and move their main process. The driver keeps its contract
// with the rules (see their doc.go). It can die between any two effects, and around a fork. The
// next leader finds the records, the processes, and the store of pidfds that the members share. All
// members can be dead for a while, and the store is lost then. The host can lose power. Meanwhile
// operators give commands, and the configuration changes.
//
// An oracle with a model of its own checks each step: an instance has one process; no process is
// ended without a reason; an exit status is the true one, and is known if a member had a pidfd;
// dependencies, schedules, delays, limits and restart policies are kept; a rolling restart leaves
// enough instances ready. Then the faults stop. Within a bound of simulated time, every instance
// must be in the state that the configuration and the operators ask for.
//
// The same Config gives the same run. A failed run reports its seed.
package services
