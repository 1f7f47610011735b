package worker

import (
	"fmt"
	"os"

	"github.com/dynast-io/dynast/shared/host/systemd"
)

// takeActivation takes the listening socket for clients from the service manager, if the
// service manager passed one. The socket's address then replaces client.listen for all members.
func takeActivation(opts *Options) (*os.File, error) {
	socket, address, err := systemd.Begin()
	if err != nil || socket == nil || address == opts.Config.Client.Listen {
		return socket, err
	}
	cfg := *opts.Config
	cfg.Client.Listen = address
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("%w: the socket for clients listens on %s: %w", systemd.ErrActivation, address, err)
	}
	opts.Config = &cfg
	return socket, nil
}
