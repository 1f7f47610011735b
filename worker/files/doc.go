// Package files divides the limit of open files (RLIMIT_NOFILE) among the listeners of a
// member, so that client connections cannot take the descriptors that the member needs to
// follow, to lead and to start followers.
//
// Clients get the descriptors that the other listeners leave. A client beyond that waits in the
// listening socket's queue in the kernel until a connection ends, and an event reports it.
// Before a follower is added, clients make room for it.
package files
