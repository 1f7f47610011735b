package worker

import (
	"net"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dynast-io/dynast/shared/gate"
	"github.com/dynast-io/dynast/shared/proc"
)

const (
	// maxCommands and maxOthersCommands bound the connections of operators'
	// commands: those of the user who runs the cluster and of root, and those of
	// everybody else, who cannot take the former's place.
	maxCommands       = 256
	maxOthersCommands = 32
	// maxBrowsers bounds the connections to the page for operators.
	maxBrowsers = 256
	// adminIdle is how long a connection may last on which nothing is asked.
	adminIdle = 30 * time.Second
	// maxAdminRequest bounds a command's request, in bytes.
	maxAdminRequest = 64 << 10
)

// door lets in those who connect to a socket of the data directory, by who they are.
type door struct {
	*net.UnixListener
	own, others *gate.Gate
}

func newDoor(l *net.UnixListener, logger hclog.Logger) *door {
	limits := func(n int) gate.Limits { return gate.Limits{Total: n, Patience: strangerPatience} }
	return &door{UnixListener: l,
		own:    gate.New(l.Addr().String(), limits(maxCommands), logger),
		others: gate.New(l.Addr().String()+", other users", limits(maxOthersCommands), logger)}
}

// Accept returns the next connection for which there is a place.
func (d *door) Accept() (net.Conn, error) {
	for {
		c, err := d.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if admitted := d.gateFor(c).Admit(c); admitted != nil {
			return admitted, nil
		}
		_ = c.Close()
	}
}

func (d *door) gateFor(c *net.UnixConn) *gate.Gate {
	if _, uid, err := proc.PeerUID(c); err == nil && (uid == os.Getuid() || uid == 0) {
		return d.own
	}
	return d.others
}
