// Package gate bounds what strangers can take from a process that listens: a
// connection costs a descriptor and memory before it has shown who it is.
//
// A connection is admitted as unproven. Whoever serves it says when it has
// proved itself (a TLS handshake with a certificate of the cluster, the first
// bytes of a known protocol). Until then it may take a stated time, and only so many
// may be on their way: one more ends another, first the one that has been silent
// for longest. So who speaks at once is served, however many say nothing. All
// connections together are bounded too; those beyond are refused.
//
// The kernel's limit of open files is never reached by connections alone: see
// MaxConnections.
package gate
