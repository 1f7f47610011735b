// Package certs provides TLS for clients. It reads the certificate from files, and reads
// them again when they change.
//
// # Guarantees
//
//   - When a certificate, key or client CA is replaced, new connections use it at most a
//     second later. If the files do not fit together, most likely because only a part of
//     them was replaced yet, nothing changes: the previous files stay in use, the log
//     says what is wrong, and the files are checked again.
//   - With a client CA, nobody can connect without a certificate from it. The certificate's
//     common name is in the gRPC peer (credentials.TLSInfo), where etcd's auth looks for it.
//   - gRPC clients get HTTP/2. A client that offers HTTP/1.1 gets HTTP/1.1. Browsers and
//     curl offer it, gRPC clients never do.
//
// # Requirements
//
//   - The process can read the files. It writes nothing.
package certs
