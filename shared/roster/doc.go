// Package roster names the members of a cluster and says who comes next.
//
// A member is one process, named by its address host:port. Addresses are
// ordered by host and then by port as a number, so 127.0.0.1:9999 comes
// before 127.0.0.1:10000 and 127.0.0.9 before 127.0.0.10. The order decides
// the succession and nothing else: a process that was told to follow is a
// follower, whatever its address sorts to.
//
// Everything here is a pure value: no clock, no I/O, no goroutine. A Roster is
// immutable once it was handed out; change a Clone.
package roster
