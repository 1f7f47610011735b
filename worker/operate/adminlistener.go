package operate

import (
	"net"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dynast-io/dynast/shared/client/gate"
	"github.com/dynast-io/dynast/shared/host/openfiles"
	"github.com/dynast-io/dynast/shared/host/proc"
)

const (
	// adminIdle is how long a connection may stay open without a request.
	adminIdle = 30 * time.Second
	// strangerPatience is how long a new connection may stay silent.
	strangerPatience = 5 * time.Second
	// A command makes one request, with small headers.
	maxCommandStreams     = 16
	maxCommandHeaderBytes = 16 << 10
	// maxAdminRequest bounds a command's request, in bytes.
	maxAdminRequest = 64 << 10
)

// adminListener limits the connections to the admin socket: separately for the user who runs
// the cluster and root, and for other users.
type adminListener struct {
	*net.UnixListener
	own, others *gate.Gate
}

func newAdminListener(l *net.UnixListener, shares openfiles.Shares, logger hclog.Logger) *adminListener {
	limits := func(n int) gate.Limits { return gate.Limits{Total: n, Patience: strangerPatience} }
	return &adminListener{UnixListener: l,
		own:    gate.New(l.Addr().String(), limits(shares.Commands), logger),
		others: gate.New(l.Addr().String()+", other users", limits(shares.Others), logger)}
}

// Accept returns the next connection within the limits, and closes the others.
func (l *adminListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if admitted := l.gateFor(c).Admit(c); admitted != nil {
			return admitted, nil
		}
		_ = c.Close()
	}
}

func (l *adminListener) gateFor(c *net.UnixConn) *gate.Gate {
	if _, uid, err := proc.PeerUID(c); err == nil && (uid == os.Getuid() || uid == 0) {
		return l.own
	}
	return l.others
}
