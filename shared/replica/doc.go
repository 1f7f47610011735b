// Package replica is the wing of the data that a member keeps: the log, the store that
// applies it, and the import of an etcd's data. Each package owns the files that it writes,
// and distinguishes torn, damaged and missing files. The wing has no code of its own; its
// packages are
//
//   - log: the replicated log of one slot;
//   - store: the state machine, on etcd's own packages;
//   - restore: a data directory made from an etcd's snapshot or data.
//
// It may import rules, host and config. Package rules decides which entries are
// authoritative, not this wing.
package replica
