// Package state is what the parts of a member share: the identity of the member (Self), what
// the loop has decided (State), the configuration (Settings), and how the process ends (Fate).
//
// Only the loop writes State; every other goroutine reads it. A reader sees each single value
// complete, but two values that it reads one after the other may be from different moments.
package state
