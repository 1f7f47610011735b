// Package metrics turns what a leader knows into metrics for Prometheus. Names
// follow its conventions: the prefix dynast_, base units, _total for what only
// grows. No label holds a pid. docs/metrics.md explains each; a test keeps the
// two equal.
//
// Nothing is sampled in between: a scrape asks the leader once. What counts deaths
// and takeovers goes on over takeovers, from the totals in the data directory
// (package events); all else begins at zero with each leader, which Prometheus
// takes for the reset of a counter.
package metrics
