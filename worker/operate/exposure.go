package operate

import (
	"net/netip"

	"github.com/dynast-io/dynast/shared/config"
)

// exposure is a listening address that other hosts can reach, and what can be done there.
type exposure struct{ what, listen string }

// exposures lists what is open to the network. withUsers says that requests need a user.
func exposures(cfg *config.Config, withUsers bool) []exposure {
	var found []exposure
	warn := func(listen, what string) { found = append(found, exposure{what: what, listen: listen}) }
	if c := cfg.Client; reachable(c.Listen) {
		if !c.TLS() {
			warn(c.Listen, "clients are served without TLS: anyone on the network can read keys, values and passwords: "+
				"set client.cert_file and client.key_file, or listen on a loopback address")
		}
		if !withUsers && c.ClientCAFile == "" {
			warn(c.Listen, "anyone who reaches the client address can read and change every key: "+
				"add users (dynast ctl auth enable), or set client.client_ca_file, or listen on a loopback address")
		}
	}
	if d := cfg.Dashboard; d.On() && reachable(d.Listen) {
		if d.TokenFile != "" {
			warn(d.Listen, "the dashboard's token can be read on the network: put a proxy with TLS in front of it, or listen on a loopback address")
		} else {
			warn(d.Listen, "anyone who reaches the dashboard's address can look at it, over plain HTTP: "+
				"put a proxy with TLS in front of it, or listen on a loopback address")
		}
	}
	return found
}

// reachable reports whether other hosts can reach the address.
func reachable(listen string) bool {
	a, err := netip.ParseAddrPort(listen)
	return err == nil && !a.Addr().IsLoopback()
}

// warnOfExposure logs what is open to the network, once for each leader.
func (o *Operators) warnOfExposure() {
	for _, e := range exposures(o.Settings.Now(), o.clients.AuthEnabled()) {
		o.Log.Warn(e.what, "listen", e.listen)
	}
}
