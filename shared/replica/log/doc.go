// Package log is the replicated log of one slot. It holds entries, each with an
// epoch and an index, and writes them through etcd's wal package.
//
// Guarantees:
//
//   - When Append has returned, the entries survive the death of the process: Read
//     finds them from another process. When Sync has returned their index, they
//     survive the death of the host. Append does not wait for an fsync, with one
//     exception: the wal package fsyncs the directory once per segment.
//   - Read and LastPosition work without a lock and without a living owner, and
//     change nothing on disk. They return a prefix of what was appended, or an
//     error. They never return other entries, and no content of the disk makes
//     them panic.
//   - Open changes the disk only behind the writer's last completed Sync: it cuts
//     off an unfinished end. When Open returns ErrCorrupt, it has changed nothing.
//   - Indices have no gaps and epochs never decrease. Entries that a durable
//     database already holds are never replaced.
//
// Requirements:
//
//   - One process has the directory open for append. It holds the slot's lock; a
//     second process gets ErrLocked. One goroutine of that process appends. All
//     other methods may be called from any goroutine at any time until Close.
//   - The owner calls Compact from time to time. Without it, files and entries that
//     the database holds are kept for ever.
//   - Nobody writes to Data after handing it to Append or getting it from Entries.
//   - After ErrFailed, the owner calls Close and Open again. It must consider
//     everything beyond Synced unknown.
//
// The last entries are also kept in memory, for followers and the applier;
// Options.TailBytes bounds them. Entries that have left the memory may still be on
// disk. Read finds them from another process, ReadAfter from this one. A log can be
// kept much longer than its owner needs it, because Open reads only its end.
//
// # On disk
//
// The log is a sequence of segments, files named <sequence>-<first index>.wal in
// etcd's format. The wal package does not fsync them. Sync does, through its own
// descriptors, in this order: old segment, new segment, directory.
//
// A snapshot record names a position. Create writes one for the position at which
// the log begins. Compact writes one for the position up to which the database was
// durable when segments were deleted.
//
// The wal's HardState carries no vote and no commit index here. A state record after
// an entry of a segment means that all earlier segments were durable when the record
// was written. A reader needs this to tell two cases apart. If the power failed between
// the end of a segment and the next fsync, the log simply ends there. If the segment
// was durable before, it is damaged. etcd's ValidSnapshotEntries filters by
// HardState.Commit and is therefore not used; the reader in this package checks every
// record itself.
//
// The reader is written here because ReadAll of etcd's wal package cannot do what is
// promised above: it holds all entries in memory at once, panics at an entry that it cannot
// unmarshal, and in the last segment takes zeros for the end, also in front of synced
// entries. The writer is etcd's; a test compares the two readers.
package log
