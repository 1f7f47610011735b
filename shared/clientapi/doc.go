// Package clientapi is what etcd clients talk to: the services of etcd's v3
// API over gRPC, with etcd's semantics, errors and headers. It runs in the
// leader only. etcd's own handlers need etcd's whole server, so they are written
// anew here over two things: the store, for what is read, and a Proposer, for
// what is written.
//
// All services of etcd's API are there, and gRPC's health service; methods that
// cannot mean anything here, or are not there yet, say so. Each service has a file
// of its own, built on the same few pieces: propose (a write), read (a permission check around a
// read), header, and toStatus (an error as clients expect it).
//
// Guarantees
//
//   - A write is answered when it is replicated and applied, or with an error.
//     An error that is not about the request itself (timeout, unavailable)
//     leaves open whether the write happens, as with etcd.
//   - Reads are linearizable without asking anyone; see (*API).read.
//   - Every response, of success or failure, carries the cluster's metadata.
//   - A watch gets each event once and in order, if it was not compacted before
//     its client read it. No write waits for a watch; see watchServer.
//   - A handler makes no call to another process. (Lock and Election call the
//     other services' handlers of this process, as functions.)
//   - A lease that was granted or renewed lives at least that long, also under
//     later leaders, and is ended once; see leaseKeeper.
//
// Needs
//
//   - The store is promoted, has everything applied that any earlier leader
//     acknowledged, and stays open while requests are served.
//   - The process holds the cluster's lock for as long as it lives.
//   - Run runs from when requests are served on: it ends leases.
//   - Writes proposed one after the other are applied in that order.
package clientapi
