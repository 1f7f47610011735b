// Package gate bounds the resources that strangers can take from a listening process. A
// connection costs a descriptor and memory before its client has proved who it is.
//
// A connection is admitted as unproven. Its server says when it has proved itself: after a
// TLS handshake with a certificate of the cluster, or after the first bytes of a known
// protocol. The time until then is limited, and so is the number of unproven connections.
// When one more comes, another one is ended, first the one that has been silent for the
// longest time. So a client that speaks at once is served, however many others are silent.
// The total number of connections is bounded too, and further ones are refused.
//
// A connection also has a Peer, in which its server remembers what it has sent.
//
// The caller sets the limits; package openfiles divides the kernel's limit of open files.
// With Limits.Wait, connections beyond the limits are not accepted. In the kernel's queue
// a connection costs no descriptor, and its client waits. A connection that is accepted and
// closed is a failure to its client.
package gate
