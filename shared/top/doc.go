// Package top is the terminal dashboard: requests, latency, lag and takeovers
// as small graphs, the processes, what happened last, and keys that change something.
//
// The model is without a terminal and without a clock of its own: it takes
// samples and keys and renders text, so that it is tested as such. Bubble Tea runs it.
// It asks the cluster once a second, and goes on over takeovers: a leader that
// does not answer is a gap in the graphs.
package top
