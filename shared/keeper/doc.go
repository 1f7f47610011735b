// Package keeper decides when to start a process again.
//
// It keeps "start, wait, back off" apart from what the process is for: it
// knows seats (a number that one process at a time fills) and nothing of
// replicas. A caller asks for a seat to be filled, starts what is Due, and
// reports that the process came Up or went Down. A seat whose process keeps
// failing is filled with growing, jittered delays; the memory of failures
// decays with a half-life, so a process that stays up is soon forgiven.
//
// The package is pure: time comes in as an argument, the jitter from the
// random source that it was given, and a Keeper is owned by one goroutine.
package keeper
