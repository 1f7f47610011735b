package wire

import (
	"context"

	plugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
)

// ControlPlugin is the control service in the form that go-plugin needs.
type ControlPlugin struct {
	plugin.NetRPCUnsupportedPlugin
	// Service is set in the worker only.
	Service ControlServer
}

var _ plugin.GRPCPlugin = ControlPlugin{}

// GRPCServer registers the service in the worker.
func (p ControlPlugin) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	RegisterControlServer(s, p.Service)
	return nil
}

// GRPCClient returns a ControlClient to the leader.
func (p ControlPlugin) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, c *grpc.ClientConn) (any, error) {
	return NewControlClient(c), nil
}
