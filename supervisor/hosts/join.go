package hosts

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/shared/member/pki"
)

const (
	// joinTimeout bounds one attempt to join. A host that does not answer is asked again for
	// joinPatience, because hosts are often started together.
	joinTimeout  = hosts.AdmitTimeout + 5*time.Second
	joinPatience = 90 * time.Second
	joinPause    = time.Second
)

// Join makes this host one of the cluster that the configuration names. It does nothing if the
// configuration names none, or if the host has joined already. The host's record is written last, so
// an interrupted Join is simply repeated; the other side gives the same answer again.
func Join(ctx context.Context, cfg *config.Config, dir *datadir.Dir, log hclog.Logger) error {
	if cfg.Hosts.Join == "" {
		return nil
	}
	host, err := dir.ReadHost()
	switch {
	case err == nil && host.Removed:
		return fmt.Errorf("join: this host was removed from its cluster, and %s still has the data of that time: remove the directory, and join again", dir.Path())
	case err == nil:
		log.Debug("this host has joined already", "name", host.Name)
		return nil
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	if left, err := dir.ReadLeft(); err == nil {
		log.Warn("this host has left its cluster and is a single host with the data of that time, so it does not join; remove hosts.join from the configuration", "cluster", left.Cluster)
		return nil
	}
	if _, err := dir.ReadSuccession(); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("join: %s has the store of a single host, which would be lost: start with an empty data directory (--data-dir), and move the keys with a client if they are needed", dir.Path())
	}
	token, err := hosts.ReadTokenFile(cfg.Hosts.TokenFile)
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	q := hosts.JoinRequest{Token: token.String(), AdmitRequest: hosts.AdmitRequest{Name: cfg.Hosts.Name, Address: cfg.Hosts.Address}}
	if q.Name == "" {
		if q.Name, err = os.Hostname(); err != nil {
			return fmt.Errorf("join: the name of this host: %w; set hosts.name (--hosts-name)", err)
		}
	}
	if q.Address == "" {
		if q.Address, err = ownAddress(cfg.Hosts.Join); err != nil {
			return fmt.Errorf("join: the address of this host: %w; set hosts.address (--hosts-address)", err)
		}
	}
	if err := free(q.Address); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	resp, err := ask(ctx, cfg.Hosts.Join, token, q, log)
	if err != nil {
		return fmt.Errorf("join %s: %w", cfg.Hosts.Join, err)
	}
	if _, err := pki.Import(dir.HostsPKI(), resp.Certificate, resp.Key); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	// An earlier attempt may have left an engine that belongs to nothing.
	if err := os.RemoveAll(dir.Engine()); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	if err := dir.WriteHost(datadir.Host{Cluster: resp.Cluster, Name: q.Name, Address: q.Address, Members: resp.Members}); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	log.Info("this host joined", "name", q.Name, "address", q.Address, "cluster", resp.Cluster)
	return nil
}

// ask asks until there is an answer, or joinPatience is over.
func ask(ctx context.Context, address string, token hosts.Token, q hosts.JoinRequest, log hclog.Logger) (*hosts.JoinResponse, error) {
	c := hosts.Dial(address, pki.PinnedTLS(token.Authority))
	defer c.Close()
	for deadline := time.Now().Add(joinPatience); ; {
		try, cancel := context.WithTimeout(ctx, joinTimeout)
		var resp hosts.JoinResponse
		err := c.Ask(try, hosts.PathJoin, q, &resp)
		cancel()
		switch {
		case err == nil:
			return &resp, check(&resp, token)
		case errors.Is(err, pki.ErrOtherAuthority):
			return nil, fmt.Errorf("%w; nothing was sent to it", pki.ErrOtherAuthority)
		case !errors.Is(err, hosts.ErrUnreachable) || time.Now().After(deadline):
			return nil, err
		}
		log.Warn("the host does not answer, trying again", "address", address, "error", err)
		select {
		case <-time.After(joinPause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// check compares the authority in the answer with the token.
func check(resp *hosts.JoinResponse, token hosts.Token) error {
	sum, err := pki.Sum(resp.Certificate)
	if err != nil {
		return err
	}
	if sum != [sha256.Size]byte(token.Authority) {
		return pki.ErrOtherAuthority
	}
	return nil
}

// ownAddress returns the address that this host has on the way to another one, with the port of the
// other one. No packet is sent.
func ownAddress(other string) (string, error) {
	c, err := net.Dial("udp", other)
	if err != nil {
		return "", err
	}
	defer c.Close()
	local := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
	to, err := netip.ParseAddrPort(other)
	if err != nil {
		return "", err
	}
	if local.IsLoopback() {
		return "", errors.New("the way to it is the loopback interface")
	}
	return netip.AddrPortFrom(local, to.Port()).String(), nil
}

// free finds out now whether this host can listen on an address. Otherwise the engine would find out
// after the host was admitted.
func free(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("this host cannot listen on %s: %w; set hosts.address (--hosts-address) to an address of this host", address, err)
	}
	return l.Close()
}
