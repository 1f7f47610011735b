// Package engine is the store of a host in a cluster of several hosts: etcd's own server,
// unchanged, in a process of its own ("dynast:engine").
//
// The leader of the host supervises that process like a service: it holds the process's lock,
// adopts it over a takeover, restarts it when it dies, and kills it when it hangs (the process
// reports to a watchdog). The listening sockets belong to the host and not to the process. So
// they stay open while the process restarts, and connections wait in the kernel's queue.
//
// The process serves
//
//   - clients, on the socket that the members share: etcd's gRPC API, its HTTP paths and its
//     JSON gateway;
//   - the other hosts, on the socket "peers": etcd's Raft messages, and the messages of package
//     hosts. Both need a certificate of the cluster's authority; only a request to join does not;
//   - the leader of its host, on a Unix socket: the same messages.
//
// The engine of the host that leads the Raft group promotes learners once they have caught up.
package engine
