package worker

import (
	"fmt"

	"github.com/dynast-io/dynast/shared/clienttls"
	"github.com/dynast-io/dynast/shared/config"
)

func clientFiles(cfg *config.Config) clienttls.Files {
	return clienttls.Files{Cert: cfg.Client.CertFile, Key: cfg.Client.KeyFile, ClientCA: cfg.Client.ClientCAFile}
}

// checkClientTLS refuses a configuration with which clients could not connect.
func checkClientTLS(cfg *config.Config) error {
	if !cfg.Client.TLS() {
		return nil
	}
	if err := clienttls.New(clientFiles(cfg), nil).Load(); err != nil {
		return fmt.Errorf("TLS for clients (client.cert_file, client.key_file, client.client_ca_file): %w", err)
	}
	return nil
}

// newClientTLS reads the files while there is time, before a takeover. A
// follower lives without them: they may be whole again when it leads.
func newClientTLS(m *Member) *clienttls.Reloader {
	if !m.cfg.Client.TLS() {
		return nil
	}
	r := clienttls.New(clientFiles(m.cfg), m.logs.Logger("tls"))
	if err := r.Load(); err != nil {
		m.logger.Warn("the files for clients' TLS are not usable; they are read again when a client connects", "error", err)
	}
	return r
}
