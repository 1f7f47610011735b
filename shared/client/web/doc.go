// Package web serves HTTP on the clients' port, beside gRPC: health, version, metrics, and
// etcd's JSON gateway.
//
// Split divides the connections of a listener: gRPC (HTTP/2) goes to one side, HTTP/1 to
// the other. Server answers on the HTTP side.
//
// # Guarantees
//
//   - The split costs gRPC nothing. Without TLS it peeks at the first bytes of a
//     connection in the kernel and does not read them, so the gRPC server gets the
//     accepted connection itself. With TLS the client's list of protocols (ALPN)
//     decides, and no bytes are inspected.
//   - A silent or slow connection does not hold up others.
//   - Paths, answers and status codes are etcd's. The gateway's requests go through the
//     same gRPC server as all others, over a pipe in memory. So its interceptors, limits
//     and services apply, and a missing service is "not implemented".
//   - A web page of another site cannot use a browser on this host to read or write the
//     store. etcd allows that unless it is configured otherwise.
//
// The split is written here and not taken from soheilhy/cmux (v0.1.5 of 2021 is its last
// release). cmux reads the first bytes into a buffer, so that every later read of the gRPC
// server passes through a wrapper; and when serving ends it closes the connections that no
// server has accepted yet, where Drain passes them on.
//
// # Requirements
//
//   - The services of the gRPC server are registered before Serve is called.
//   - With TLS, the split uses the configuration of package certs, and the gRPC server
//     its credentials.
package web
