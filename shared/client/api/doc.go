// Package api serves etcd clients: the services of etcd's v3 API over gRPC, with etcd's
// semantics, errors and headers. It runs in the leader only. etcd's own handlers need
// etcd's whole server. The handlers here need only a store, for reads, and a Proposer,
// for writes.
//
// All services of etcd's API exist, and gRPC's health service. Methods that have no
// meaning here, or do not exist yet, return an error that says so. Each service has a file
// of its own. All are built from the same few pieces: propose (a write), read (a permission
// check and a read), header, and toStatus (an error in the form that clients expect).
//
// # Guarantees
//
//   - A write is answered when it is replicated and applied, or with an error. After an
//     error that does not concern the request itself (timeout, unavailable), the write may
//     or may not happen, as with etcd.
//   - Reads are linearizable without asking another process; see (*API).read.
//   - The first response on a connection, successful or not, carries the cluster's metadata,
//     and so does the first one after a change. While a client makes requests it gets the
//     metadata again every second. Each stream begins with it.
//   - A watch gets each event once and in order, unless the event is compacted before the
//     client has read it. No write waits for a watch; see watchServer.
//   - A handler makes no call to another process. (Lock and Election call the handlers of
//     this process's other services, as functions.)
//   - A granted or renewed lease lives at least for its time to live, also under later
//     leaders, and is ended once; see leaseKeeper.
//
// # Requirements
//
//   - The store is promoted, has applied everything that any earlier leader acknowledged,
//     and stays open while requests are served.
//   - The process holds the cluster's lock for as long as it lives.
//   - Run is called when serving begins. It ends leases.
//   - The Proposer applies writes in the order in which they are proposed.
package api
