// Package client is the wing that faces clients: etcd's API over gRPC and HTTP, TLS,
// and bounds on the resources that a stranger can use. A malformed request gets an error
// and never harms the process. The wing has no code of its own; its packages are
//
//   - api: etcd's v3 services;
//   - web: HTTP on the clients' port, and the split between HTTP and gRPC;
//   - certs: certificates for clients, reloaded when they change;
//   - gate: bounds on connections.
//
// It may import replica, member, observe and the wings below them.
package client
