// Package meter counts and times frequent operations: clients' requests and syncs of the
// log. One observation is two atomic additions without a lock, about ten nanoseconds. A
// reader takes a Snapshot; the difference of two snapshots describes the time between
// them.
//
// The histogram is written here because its counts are read three ways: as JSON in the tree,
// as the difference of two snapshots, and by Prometheus. Prometheus' own Histogram can only be
// read back in its exposition format, and has no quantiles; HdrHistogram needs a lock for
// concurrent use. Package bench, where each client has a histogram of its own, uses it.
//
// The numbers belong to one process: they begin at zero with each leader.
package meter
