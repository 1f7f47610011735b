// Package serve serves clients while this member leads: etcd's API and HTTP on the one address
// that all members share.
//
// The listening socket is inherited and never closed. While no member leads, new connections
// wait in the socket's queue in the kernel, so no client is refused. A leader that hands over
// answers the requests that it accepted and asks its clients to reconnect. The new connections
// wait in the same queue.
//
// Compaction runs in every member, and is paused in followers. They also record which revision
// was current at which time.
package serve
