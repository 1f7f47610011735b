// Package host is the wing of facts about the host of a cluster: processes, locks, files,
// control groups, the service manager. It reports what the kernel says, and never guesses
// from a timeout. The wing has no code of its own; its packages are
//
//   - proc: processes, pidfds, locks, descriptors, free space;
//   - launch: starts a program with settings that Go's fork and exec cannot make;
//   - cgroup: control groups for the processes of a service;
//   - datadir: the layout of the data directory;
//   - memlimit: the memory limit of the control group;
//   - openfiles: the limit of open files, and its division among listeners;
//   - parent: the small process above a cluster, in a container and at a terminal;
//   - systemd: the service manager's protocol;
//   - tick: common moments for all periodic work.
//
// It may import rules (parent takes its back-off from keeper), and nothing else.
package host
