package link

import (
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"

	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

// warmConn is a connection to the heir, opened in advance. At a takeover it saves the surviving
// followers one handshake. It carries no data before that.
type warmConn struct {
	to   roster.ID
	conn *grpc.ClientConn
}

// dialMember creates a connection to another member. It connects at its first use.
func (u *upstream) dialMember(a roster.Address) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("passthrough:///"+a.String(), append(wire.GuardClient(),
		grpc.WithTransportCredentials(credentials.NewTLS(u.authority.ClientTLS())),
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

// keepWarm keeps a connection to the heir open, unless this member is the heir.
func (u *upstream) keepWarm(r *roster.Roster) {
	var heir roster.ID
	if a, ok := r.Heir(); ok && a != u.Self.Address {
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
	conn, err := u.dialMember(heir.Address)
	if err != nil {
		u.Log.Info("cannot connect to the heir in advance", "error", err)
		return
	}
	conn.Connect()
	u.warm = &warmConn{to: heir, conn: conn}
}

// dropWarm closes the warm connection. The caller holds the lock.
func (u *upstream) dropWarm() {
	if u.warm != nil {
		_ = u.warm.conn.Close()
		u.warm = nil
	}
}

// connection returns the warm connection to a member if there is one, or a new one. The caller
// closes it.
func (u *upstream) connection(id roster.ID) (*grpc.ClientConn, error) {
	u.mu.Lock()
	if w := u.warm; w != nil && w.to == id {
		u.warm = nil
		u.mu.Unlock()
		return w.conn, nil
	}
	u.mu.Unlock()
	return u.dialMember(id.Address)
}
