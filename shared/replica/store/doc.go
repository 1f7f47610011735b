// Package store is the state machine. Committed entries of the log go in, in order;
// etcd's key-value store, leases, users and alarms come out. The parts are etcd's own
// code (packages mvcc, lease, auth, apply) over a bbolt file. This package puts them
// together, feeds them, and counts the entries.
//
// # Guarantees
//
//   - The same entries give the same content in every member.
//   - The file is consistent at any moment, also after a power loss. Commits to it are
//     fsynced, about one per Config.CommitInterval. The file itself says up to which
//     entry it goes (Durable). Later entries have to be applied again from the log;
//     Apply skips those that the file already has.
//   - A store to which nothing is applied writes nothing to the disk.
//   - Open never destroys anything. It tells a damaged file (ErrCorrupt) from a locked
//     one (ErrLocked).
//   - A simple token is valid in every member, also in one that was started after the
//     login, until it has been unused for Config.TokenTTL. See Touch.
//
// # Requirements
//
//   - A process has at most one store open at a time, because etcd registers its
//     metrics globally. The store can be closed and opened again.
//   - Apply, Snapshot, Promote, Demote and Close are called by one goroutine at a time.
//     Everything else is safe for concurrent use until Close.
//   - Results are for clients only after Promote. Before, ranges inside transactions
//     that write are checked but not executed, because nobody waits for them, and most
//     transactions have no result.
//   - Whoever calls Promote also asks Lessor().Expired and revokes the expired leases,
//     and writes checkpoints for the case of a power loss. Both propose entries.
//   - A commit that fails (disk full, I/O error) cannot be undone inside etcd's
//     backend. Config.OnFatal is called and the process ends. The caller should keep a
//     reserve of disk space.
package store
