// Package clienthttp is HTTP on the clients' port, beside gRPC: health, version,
// metrics, and etcd's JSON gateway.
//
// Split takes a listener apart: what speaks gRPC (HTTP/2) goes to one side,
// HTTP/1 to the other. Server answers on the HTTP side.
//
// Guarantees
//
//   - gRPC pays nothing for the split. Without TLS the first bytes of a
//     connection are looked at in the kernel and not read: the connection that the
//     gRPC server gets is the one that was accepted. With TLS it is the client's
//     list of protocols (ALPN) that decides, so nothing is looked at.
//   - A connection that is silent or slow holds up no other.
//   - Paths, answers and status codes are etcd's. The gateway's requests go
//     through the same gRPC server as all others, over memory: its interceptors,
//     limits and services apply, and a service that is not there is "not implemented".
//   - A web page of another site cannot use the browser of somebody on this
//     host to read or write the store; etcd lets it, unless configured otherwise.
//
// Needs
//
//   - The gRPC server has its services registered before Serve is called.
//   - With TLS: the configuration of package clienttls for the split, and its
//     credentials for the gRPC server.
package clienthttp
