package worker

import (
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"

	"github.com/dynast-io/dynast/shared/roster"
	"github.com/dynast-io/dynast/shared/wire"
)

// warmConn is a connection to the heir, made while all is well: at a takeover
// the survivors are with the new leader one handshake sooner. Nothing is sent on
// it before.
type warmConn struct {
	to   roster.ID
	conn *grpc.ClientConn
}

// dialMember makes a connection to another member. It connects when it is used.
func (m *Member) dialMember(a roster.Address) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("passthrough:///"+a.String(), append(wire.GuardClient(),
		grpc.WithTransportCredentials(credentials.NewTLS(m.authority.ClientTLS())),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: retryMin, Multiplier: 1.6, Jitter: 0.2, MaxDelay: retryMax},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithIdleTimeout(0),
		grpc.WithInitialWindowSize(8<<20), grpc.WithInitialConnWindowSize(8<<20),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMemberMessage)),
	)...)
	if err != nil {
		return nil, fmt.Errorf("connect to member %s: %w", a, err)
	}
	return conn, nil
}

// keepWarm holds a connection to the heir, unless that is this member.
func (u *upstream) keepWarm(r *roster.Roster) {
	var heir roster.ID
	if a, ok := r.Heir(); ok && a != u.m.address {
		mem, _ := r.Find(a)
		heir = mem.ID
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.warm != nil && u.warm.to == heir {
		return
	}
	u.dropWarm()
	if !heir.Address.IsValid() {
		return
	}
	conn, err := u.m.dialMember(heir.Address)
	if err != nil {
		u.m.logger.Warn("no connection to the heir", "error", err)
		return
	}
	conn.Connect()
	u.warm = &warmConn{to: heir, conn: conn}
}

// dropWarm is called with the lock held.
func (u *upstream) dropWarm() {
	if u.warm != nil {
		_ = u.warm.conn.Close()
		u.warm = nil
	}
}

// connection returns the warm connection to a member if there is one, else a
// new one. The caller closes it.
func (u *upstream) connection(id roster.ID) (*grpc.ClientConn, error) {
	u.mu.Lock()
	if w := u.warm; w != nil && w.to == id {
		u.warm = nil
		u.mu.Unlock()
		return w.conn, nil
	}
	u.mu.Unlock()
	return u.m.dialMember(id.Address)
}
