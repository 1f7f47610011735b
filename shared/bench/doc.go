// Package bench measures a running cluster from outside, with a stock etcd
// client. Nothing in it knows whose server answers, so a peer is measured with
// the same code.
//
// The loads are closed: each client waits for the answer before it asks again.
// So throughput and latency belong together, and a server that stops for a
// moment shows in the maximum, not in every percentile.
//
// What the servers spend is read from /proc, for processes that the caller
// names; they must be on this host.
package bench
