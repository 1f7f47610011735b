// Package services runs the user's own programs. It carries out what package
// shared/rules/services decides, and decides nothing itself.
//
// A Manager works in the leader only. The processes do not depend on it: when the leader dies,
// they go on, and the Manager of the next leader adopts them. What it needs for that is in files
// below <data directory>/services, which only the leader replaces:
//
//	desired.json         the services of the configuration, those that were added at run time,
//	                     and what an operator started and stopped
//	web/1/lock           the lock of an instance, which its processes hold
//	web/1/record.json    the state of an instance, and how its process was started
//	web/1/output.log     what its processes write
//
// The lock is an flock on an open file that is passed to the child. So the kernel holds it from
// the fork on, and in every descendant that keeps the descriptor. A program that closes all
// descriptors drops it; then the pid in the record, and a token in the environment, find it.
//
// One goroutine (Manager.run) owns the Core and the records. A start, the end of a process tree
// and each check have their own goroutines, which report to that one.
package services
