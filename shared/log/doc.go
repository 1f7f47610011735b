// Package log is the replicated log of one slot: entries with an epoch and an
// index, kept in the segments of etcd's wal package.
package log
