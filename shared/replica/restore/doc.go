// Package restore makes a data directory from the data of an etcd: from a snapshot file
// ("etcdctl snapshot save", also of dynast itself), or from the data directory of a
// stopped etcd.
//
// # Guarantees
//
//   - Clients see the same data: keys, revisions, the compacted revision, leases, users,
//     roles, permissions. So a watch can continue after its last revision. A lease gets
//     the time that is recorded for it, as when etcd starts. That is its full time, unless
//     etcd wrote checkpoints.
//   - From a data directory, restore takes everything that its member would serve after a
//     start: it applies the log to the database up to the log's end. This includes
//     entries that were not known to be committed, because every acknowledged write of an
//     etcd that crashed may be among them.
//   - The source is not changed. A source that is in use, damaged or something else is
//     refused.
//   - The new data directory appears whole and durable, or not at all. It replaces
//     an empty directory only. (If that directory is a mount point, or its parent is not
//     writable, it is filled in place, with succession.json last.)
//
// Restore leaves out what belongs to etcd's cluster and not to its data: members, the
// position in the log, NOSPACE alarms, logins.
//
// # Requirements
//
//   - A process runs one restore at a time, without an open store; see package store.
package restore
