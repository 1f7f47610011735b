// Package prove is the wing that tries to show that dynast is wrong: simulation, chaos
// with real processes, end-to-end tests and benchmarks. It has no code of its own; its
// packages are
//
//   - sim: the rules under a seeded scheduler, with an independent oracle;
//   - chaos: real processes that are killed while clients write;
//   - e2e: end-to-end tests of the built program;
//   - bench: measurements from outside, of dynast and of its peers;
//   - fuzzing: helpers for the fuzz targets of the decoders;
//   - netns: networks of several hosts on one machine;
//   - testkit: helpers for tests of all wings.
//
// It may import every wing but operator. Nothing that serves clients imports it.
package prove
