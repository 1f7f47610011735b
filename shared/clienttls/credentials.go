package clienttls

import (
	"context"
	"crypto/tls"
	"errors"
	"net"

	"google.golang.org/grpc/credentials"
)

// Credentials are for a gRPC server whose listener has done the handshake:
// they take from the connection who the client is. A connection without TLS passes as
// nobody: such a listener has none, only the server's own process does.
func Credentials() credentials.TransportCredentials { return done{} }

type done struct{}

// local is the security of a connection that does not leave the process.
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
	return nil, nil, errors.New("clienttls: the credentials of a server")
}

func (done) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (done) Clone() credentials.TransportCredentials { return done{} }
func (done) OverrideServerName(string) error         { return nil }
