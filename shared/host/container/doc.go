// Package container is the parent of a cluster that is the first process of a container
// (of a PID namespace). When the first process dies, the kernel ends the whole namespace,
// so the leader must not be that process.
//
// The parent starts the program again as its child. From then on it does what an init
// does:
//
//   - It reaps orphans, among them the followers of dead leaders.
//   - It passes signals on to the leader.
//   - It ends when the last member has ended, with that member's exit code.
//   - When all members were killed, for instance by a memory limit, it starts the cluster
//     again, with growing delays.
//
// It serves nobody, and the only file of the cluster that it opens is the one that names
// the leader. So it has few reasons to fail.
package container
