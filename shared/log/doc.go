// Package log is the replicated log of one slot: entries with an epoch and an
// index, written through etcd's wal package.
//
// What it guarantees:
//
//   - An entry whose Append returned survives the death of the process: Read in
//     another process finds it. One whose index Sync returned survives the
//     death of the host. Append never waits for an fsync, except once per
//     segment for that of the directory, which the wal package does by itself.
//   - Read and LastPosition need no lock and no living owner, and change
//     nothing. They return a beginning of what was appended, or an error:
//     never other entries. Nothing on disk makes the package panic.
//   - Open changes only an unfinished end: bytes that the writer's last
//     completed Sync did not cover. ErrCorrupt leaves everything as it was.
//   - Indices have no gaps, epochs never go back; entries that are in a durable
//     database are never replaced.
//
// What it needs:
//
//   - One process owns the directory for append (the slot's lock; a second one
//     gets ErrLocked), one goroutine in it appends. All other methods may be
//     called from any goroutine at any time until Close.
//   - Compact from time to time, or files and entries that the database holds
//     stay. Data handed to Append or got from Entries is never written to again.
//   - After ErrFailed: Close, and Open again. What is not Synced must be
//     considered unknown.
//
// The last entries are also in memory, bounded by Options.TailBytes, for
// followers and the applier. What left it may still be on disk, for Read in another
// process and for ReadAfter in this one. A log can be kept much longer than its owner
// needs: Open reads its end only.
//
// # On disk
//
// Segments named <sequence>-<first index>.wal of etcd's format, without fsync by the wal
// package: Sync does it through descriptors of its own, old segment, new segment,
// directory. A snapshot record names the position at which the log begins
// (Create) or up to which the database was durable when segments were deleted
// (Compact). The wal's HardState carries no vote and no commit index: a state
// record behind an entry of a segment means that all segments before it were
// durable when it was written. By it a reader tells a power loss between the
// end of a segment and the next fsync, after which the log simply ends there,
// from damage to what was once durable. etcd's ValidSnapshotEntries, which
// filters by HardState.Commit, is therefore not used here; the reader in this
// package checks every record by itself.
package log
