// Package roster lists the members of a cluster and defines the line of succession.
//
// A member is one process. Its name is its address, host:port. Addresses are ordered by host
// and then by port as a number: 127.0.0.1:9999 comes before 127.0.0.1:10000, and 127.0.0.9
// before 127.0.0.10. The order decides the succession and nothing else. A process that was told
// to follow is a follower, whatever its address is.
//
// The package has no clock, no I/O and no goroutines. A Roster must not be changed after it was
// handed out; change a Clone instead.
package roster
