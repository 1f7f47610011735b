// Package e2e tests real processes. It builds the binary, starts clusters on loopback in their
// own directories, sends real signals, and uses stock clients. It contains only tests.
package e2e
