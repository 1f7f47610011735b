// Package e2e tests real processes: it builds the binary, starts clusters on
// loopback in directories of their own, sends real signals, and talks to them
// with stock clients. It has no code but tests.
package e2e
