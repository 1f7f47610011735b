package gate

import (
	"net"

	"google.golang.org/grpc/credentials"
)

// Credentials are those of a gRPC server behind a gate's listener: a connection
// has proved itself when its handshake is done.
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
