// Package datadir defines the layout of a cluster's data directory:
//
//	cluster.lock       flock'd by the leader for life
//	cluster.json       the cluster's id
//	succession.json    epoch, leader and the slot that holds every acknowledged write
//	claims.json        the epochs that were ever begun
//	admin.sock         where the leader answers operators
//	handoff.sock       where the leader passes descriptors to processes that join
//	runtime.json       the directory of the members' private sockets
//	lease-deadlines    when leases end, for the next leader
//	pki/               the cluster's certificate authority
//	engine.sock        where the engine answers the leader, if there are several hosts
//	hosts/             what belongs to a cluster of several hosts; see Host
//	slots/1, 2, ...    one replica each: db, log/, slot.lock, slot.json
//
// It guarantees:
//
//   - A data directory belongs to the user that opens it, and nobody else can write to
//     it. The group and others may be allowed to read it.
//   - A state file is replaced as a whole (temporary file, fsync, rename, fsync of the
//     directory). A reader sees the old or the new file, and after a power loss one of
//     the two is there.
//   - A malformed state file gives ErrCorrupt. No part of it is used.
//   - All processes that open the same data directory find the same sockets, whatever
//     their environment is.
//
// Callers may write state files only while they hold cluster.lock, and slot.json only
// while they hold that slot's lock.
package datadir
