// Package cli holds the commands that talk to a running cluster or to its files (App): tree, stop,
// etcdctl's own commands, and the benchmarks; and the simulator, which needs neither. Commands that read print their result on
// standard output and everything else on standard error.
package cli
