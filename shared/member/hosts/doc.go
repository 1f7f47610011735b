// Package hosts is what the hosts of a cluster say to each other: how a host asks to join, how
// tokens admit it, and how hosts describe themselves. The messages are JSON over HTTP. Each
// engine answers them at the address of its host, where it also talks to the other engines
// (mutual TLS, see Paths), and on a Unix socket for the leader of its own host.
//
// A host is admitted by a token. A token consists of a checksum of the cluster's certificate
// authority, the token's name, and a secret. The joining host compares the checksum with the
// certificate that it is shown before it sends anything. The other side keeps only a checksum of
// the secret and compares in constant time. A token has an end, can be revoked, and can be
// limited to one use.
package hosts
