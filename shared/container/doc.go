// Package container is the parent that a cluster has when it is the first process of a
// container (of a PID namespace): the kernel ends the whole namespace when that process dies, so
// the leader must not be it.
//
// The parent starts the program again as its child and from then on does what an init does
// and nothing else: it reaps orphans, among them the followers of dead leaders, passes signals on to
// whoever leads, and ends when the last member has, with that one's exit code. It serves nobody,
// opens no file of the cluster but to read who leads, and so has little to die of.
package container
