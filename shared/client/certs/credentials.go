package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"net"

	"google.golang.org/grpc/credentials"
)

// Credentials returns credentials for a gRPC server whose listener does the handshake. They
// take the client's identity from the connection. A connection without TLS counts as anonymous.
// A TLS listener has no such connections; only the server's own process makes them.
func Credentials() credentials.TransportCredentials { return done{} }

type done struct{}

// local is the security of a connection within the process.
type local struct{ credentials.CommonAuthInfo }

func (local) AuthType() string { return "local" }

func (done) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secure := credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}
	inner := c
	if w, ok := c.(interface{ Unwrap() net.Conn }); ok {
		inner = w.Unwrap()
	}
	if t, ok := inner.(*tls.Conn); ok {
		return c, credentials.TLSInfo{State: t.ConnectionState(), CommonAuthInfo: secure}, nil
	}
	return c, local{secure}, nil
}

func (done) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("certs: the credentials of a server")
}

func (done) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (done) Clone() credentials.TransportCredentials { return done{} }
func (done) OverrideServerName(string) error         { return nil }
