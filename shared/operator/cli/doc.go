// Package cli holds all commands except those that run a member. Most of them talk to a
// running cluster or read its files (App): tree, stop, the commands of etcdctl, the benchmarks
// and so on. The simulator needs no cluster. Commands that read print their result on standard
// output, and everything else on standard error.
package cli
