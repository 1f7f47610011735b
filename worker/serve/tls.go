package serve

import (
	"fmt"

	"github.com/dynast-io/dynast/shared/client/certs"
	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/worker/state"
)

func clientFiles(cfg *config.Config) certs.Files {
	return certs.Files{Cert: cfg.Client.CertFile, Key: cfg.Client.KeyFile, ClientCA: cfg.Client.ClientCAFile}
}

// CheckTLS refuses a configuration with which no client could connect.
func CheckTLS(cfg *config.Config) error {
	if !cfg.Client.TLS() {
		return nil
	}
	if err := certs.New(clientFiles(cfg), nil).Load(); err != nil {
		return fmt.Errorf("TLS for clients (client.cert_file, client.key_file, client.client_ca_file): %w", err)
	}
	return nil
}

// newTLS reads the files now, so that a takeover does not have to. A follower runs without
// usable files: they may have been repaired when it leads.
func newTLS(sh *state.Shared) *certs.Reloader {
	if !sh.Settings.Start.Client.TLS() {
		return nil
	}
	r := certs.New(clientFiles(sh.Settings.Start), sh.Logs.Logger("tls"))
	if err := r.Load(); err != nil {
		sh.Log.Warn("cannot use the TLS files for clients; they are read again when a client connects", "error", err)
	}
	return r
}
