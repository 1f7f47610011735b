// Package keeper decides when a process is started again.
//
// It separates starting, waiting and backing off from the purpose of the process. A keeper
// knows seats, which are numbers; one process at a time fills a seat. It knows nothing about
// replicas. The caller asks for a seat to be filled, starts the processes that are Due, and
// reports when a process is Up or Down. A seat whose process keeps failing is filled after
// growing delays with jitter. The count of failures decays with a half-life, so a process that
// stays up soon starts without delay again.
//
// The package has no clock and no I/O: the caller passes the time as an argument and gives the
// random source for the jitter. One goroutine owns a Keeper.
package keeper
