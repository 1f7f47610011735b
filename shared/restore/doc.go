// Package restore starts a data directory from what an etcd left behind: a
// snapshot file ("etcdctl snapshot save", also of dynast itself), or the data
// directory of an etcd that is stopped.
//
// Guarantees
//
//   - What clients see is the same: keys, revisions, what is compacted, leases,
//     users, roles, rights. So a watch can go on after its last revision. A lease has
//     the time that was written down of it, as when etcd starts: all of it, unless
//     etcd wrote checkpoints.
//   - Of a data directory everything is taken that its member would serve after a
//     start: its log is applied to its database to the end. Entries that are in the log
//     and were not known to be committed are taken too, as every acknowledged write of
//     an etcd that crashed may be among them.
//   - The source is not changed, and nothing is taken from one that is in use, or
//     damaged, or something else.
//   - The new data directory appears whole and durable, or not at all. It replaces
//     nothing but an empty directory. (One that is a mount point, or in a directory that cannot be
//     written to, is filled in place instead; succession.json comes last there.)
//
// What belongs to etcd's cluster and not to its data is left behind: members, the
// position in the log, NOSPACE alarms, logins.
//
// Needs
//
//   - One restore at a time in a process, and no open store: see package store.
package restore
