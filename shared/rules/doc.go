// Package rules is the wing of decisions: what a member, a follower's keeper or the
// line of succession decides, without I/O, clocks, goroutines or global randomness.
// The same code runs in real processes and under the simulator. It has no code of its
// own; its packages are
//
//   - core: whom to follow, when to inherit, what is committed, whom to start and kill;
//   - keeper: when to start a process again;
//   - roster: who the members are, and who comes next;
//   - entry: what the log holds, and how a place in it is named.
//
// It imports no other wing.
package rules
