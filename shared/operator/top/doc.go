// Package top is the terminal dashboard. It shows requests, latency, lag and takeovers as small
// graphs, and the processes, the services and the last events as lists. Some keys change the
// cluster or an instance of a service, and one shows the output of an instance.
//
// The model uses no terminal and no clock. It takes samples and keys and renders text, so that
// tests need no terminal either. Bubble Tea runs the model.
//
// The model asks the cluster once a second. It continues across takeovers: while no leader
// answers, the graphs have a gap.
package top
