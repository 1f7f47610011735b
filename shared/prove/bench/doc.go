// Package bench measures a running cluster from outside, with a stock etcd client. It does not
// depend on which server answers, so it measures etcd and dynast with the same code.
//
// The loads are closed: each client waits for the answer before it sends the next request.
// Throughput and latency therefore belong together. A server that pauses for a moment shows in
// the maximum latency, and not in every percentile.
//
// The cost of the servers is read from /proc, for the processes that the caller names. These
// processes must run on this host.
package bench
