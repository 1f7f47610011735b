// Command sidebyside measures dynast, etcd and two limits of the machine in one run, in turns. It
// writes the results as tables and a chart. scripts/bench.sh builds and runs it.
//
// The systems:
//
//   - dynast: a leader and its followers, with the built-in configuration;
//   - etcd-1 and etcd-3: the published server in its default configuration (package embed), one
//     process for each member. As etcd recommends, clients of etcd-3 have all three endpoints;
//   - echo: a gRPC server that answers the same messages and does nothing else. It shows the
//     limit of network and gRPC;
//   - disk: a loop that appends and fdatasyncs batches with one write for each client. It shows
//     the limit of the disk.
//
// All systems run during the whole measurement. Each load goes to one system after the other, and
// this is repeated, so that other work on the machine affects all systems in the same way. Only
// ratios within one run are meaningful. The command ends every process that it started, after an
// interrupt too.
package main
