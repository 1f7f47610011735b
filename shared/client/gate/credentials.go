package gate

import (
	"net"
	"net/http"

	"google.golang.org/grpc/credentials"
)

// Credentials wraps the credentials of a gRPC server behind a gate's listener. A connection is
// proven when its handshake is complete.
func Credentials(c credentials.TransportCredentials) credentials.TransportCredentials {
	return proving{c}
}

type proving struct {
	credentials.TransportCredentials
}

func (p proving) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, info, err := p.TransportCredentials.ServerHandshake(c)
	if admitted, ok := c.(*Conn); ok && err == nil {
		admitted.Proved()
	}
	return secured, info, err
}

func (p proving) Clone() credentials.TransportCredentials {
	return proving{p.TransportCredentials.Clone()}
}

// RequestIsProof is the ConnState hook of an HTTP server behind a gate's listener. A connection
// is proven when a request begins.
func RequestIsProof(c net.Conn, state http.ConnState) {
	if admitted, ok := c.(*Conn); ok && state == http.StateActive {
		admitted.Proved()
	}
}
