// Package datadir knows where everything lies in a cluster's data directory:
//
//	cluster.lock       flock'd by the leader for life
//	cluster.json       the cluster's id
//	succession.json    epoch, leader and the slot that holds every acknowledged write
//	admin.sock         where the leader answers operators
//	handoff.sock       where the leader passes descriptors to who joins
//	runtime.json       where the members' private sockets are
//	pki/               the cluster's certificate authority
//	slots/1, 2, ...    one replica each: db, log/, slot.lock, slot.json
//
// It guarantees that
//
//   - a data directory belongs to the user that opens it, and nobody else can
//     write to it; reading may be allowed to the group and to others;
//   - a state file is replaced as a whole (temporary file, fsync, rename, fsync of
//     the directory): a reader sees the old one or the new one, and after a power
//     loss one of the two is there;
//   - a state file that makes no sense is ErrCorrupt and never half believed;
//   - every process that opens the same data directory finds the same sockets,
//     whatever its environment is.
//
// It needs its callers to write only while they hold cluster.lock, and slot.json
// while they hold that slot's lock.
package datadir
