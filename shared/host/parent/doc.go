// Package parent is the small process above a cluster, in two cases.
//
// In a container, dynast is the first process of its PID namespace. When the first process
// dies, the kernel ends the whole namespace, so the leader must not be that process. At a
// terminal (or with 'dynast up --attach'), a person expects the program to stay until the
// cluster ends, whichever process leads.
//
// The parent starts the program again as its child. From then on:
//
//   - It reaps orphans, among them the followers of dead leaders.
//   - It passes signals on to the leader. A signal to stop is repeated to later leaders.
//   - It ends when the last member has ended, with that member's exit code.
//   - In a container, when all members were killed, for instance by a memory limit, it
//     starts the cluster again, with growing delays.
//
// Its own death changes nothing for the members, except that it ends a container. It serves
// nobody, and the only files of the cluster that it opens are those that name the members.
// So it has few reasons to fail.
package parent
