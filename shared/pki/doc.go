// Package pki lets the members of one cluster recognise each other by mutual
// TLS.
//
// A cluster has one certificate authority, made at its first start: ca.key
// (0600) and ca.crt in a directory that only the cluster's user can write. Who
// can read the key is a member: a process needs nothing else to join. Each
// process makes certificates for itself, in memory and of short life, and renews
// them before they end; nothing has to be distributed, and there is nothing to
// expire in a cluster that nobody restarts.
//
// It guarantees that a connection made with ServerTLS and ClientTLS is TLS 1.3
// and has a member of the same cluster at both ends. It does not say which member: a
// member names itself in its first message. Certificates carry a fixed name
// and no address, since members share a host and come and go.
//
// It needs the clocks of the members to agree to an hour. The authority itself is
// valid at any time, so a host that starts with a wrong clock does no lasting harm.
package pki
