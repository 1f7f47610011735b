// Package pki lets the members of a cluster authenticate each other by mutual TLS.
//
// A cluster has one certificate authority, which is made at its first start: ca.key (0600)
// and ca.crt, in a directory that only the cluster's user can write. Whoever can read the
// key is a member; a process needs nothing else to join. Each process makes short-lived
// certificates for itself, in memory, and renews them before they end. So nothing has to
// be distributed, and nothing expires in a cluster that is never restarted.
//
// A connection made with ServerTLS and ClientTLS is TLS 1.3 and has a member of the same
// cluster at both ends. The certificate does not tell which member; a member names itself
// in its first message. Certificates carry a fixed name and no address, because members
// share a host and come and go.
//
// The clocks of the members must agree to an hour. The authority itself is valid at any
// time, so a host that starts with a wrong clock does no lasting harm.
package pki
