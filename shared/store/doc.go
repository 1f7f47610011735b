// Package store is the state machine: committed entries of the log go in, in
// order, and etcd's key-value store, leases, users and alarms come out. It is
// etcd's own code (packages mvcc, lease, auth, apply) over a bbolt file; what
// is here puts it together, feeds it, and keeps count of the entries.
//
// Guarantees
//
//   - The same entries give the same content in every member.
//   - The file is consistent at any moment, also after power loss: commits to it
//     are fsynced, about one per Config.CommitInterval. It says itself which
//     entry it goes up to (Durable); what came later has to be applied again
//     from the log, and Apply skips what the file already has.
//   - A store to which nothing is applied writes nothing to the disk.
//   - Open never destroys anything, and tells a damaged file (ErrCorrupt) from
//     a locked one (ErrLocked).
//   - A simple token that a user got is good in every member, also in one that
//     was started later, until it was not used for Config.TokenTTL: see Touch.
//
// Needs
//
//   - One store open at a time in a process: etcd registers its metrics
//     globally. It can be closed and opened again.
//   - Apply, Snapshot, Promote, Demote and Close are called by one goroutine at a
//     time. Everything else is safe for concurrent use until Close.
//   - Results are for clients only after Promote: before, ranges inside
//     transactions that write are checked but not executed, because nobody waits
//     for them.
//   - Who promotes also drains Lessor().ExpiredLeasesC and gives the lessor a
//     checkpointer, as soon as leases can be granted: both propose entries.
//   - A commit that fails (disk full, I/O error) cannot be undone inside etcd's
//     backend: Config.OnFatal is called and the process ends. Keep a reserve of
//     disk space.
package store
