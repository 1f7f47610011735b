// Package clienttls is TLS for clients: the certificate from files, read again
// when they change.
//
// Guarantees
//
//   - A certificate, key or client CA that was replaced is used by the next
//     connection, at most a second later. Files that do not fit together (one
//     half of a change, most likely) change nothing: what was good stays, the log
//     says what is wrong, and the files are looked at again.
//   - With a client CA nobody connects without a certificate of it; its
//     common name is in the gRPC peer (credentials.TLSInfo), where etcd's auth looks.
//   - gRPC clients get HTTP/2; who can also speak HTTP/1.1, as browsers and
//     curl can and gRPC clients never offer, gets that.
//
// Needs
//
//   - Files that the process may read; nothing is written.
package clienttls
