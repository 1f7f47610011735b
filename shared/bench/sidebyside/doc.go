// Command sidebyside measures dynast beside etcd and beside two limits of the
// machine, in one run and in turn, and writes what it saw as tables and a chart.
// scripts/bench.sh builds and runs it.
//
// The systems:
//
//   - dynast, a leader and its followers, with the built-in configuration;
//   - etcd-1 and etcd-3, the published server in its default configuration (package
//     embed), one process for each member. Clients of etcd-3 have all three
//     endpoints, as they are told to;
//   - echo, a gRPC server that answers the same messages and does nothing else:
//     what the network and gRPC allow;
//   - disk, a loop of append and fdatasync of batches with one write for
//     each client: what the disk allows.
//
// All of them run from beginning to end; each load goes to one after the other,
// and all of that is repeated, so that whatever else the machine does meets all of
// them alike. Only ratios within one run say something. Every
// process that is started is ended, on an interrupt too.
package main
