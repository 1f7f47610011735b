// Package metrics turns what a leader knows into metrics for Prometheus. The names follow
// Prometheus' conventions: the prefix dynast_, base units, _total for counters. No label
// holds a pid. docs/metrics.md explains each metric; a test keeps the two in agreement.
//
// Nothing is sampled between scrapes: a scrape asks the leader once. The counters of deaths
// and takeovers continue over takeovers, because they come from the totals in the data
// directory (package events). So do the counters of a service's restarts and skipped runs,
// because they come from its records. All others begin at zero with each leader, or with each
// process of a service, which Prometheus handles as the reset of a counter.
package metrics
