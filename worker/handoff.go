package worker

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/gate"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/proc"
	"github.com/dynast-io/dynast/shared/wire"
)

const (
	handoffTimeout = 5 * time.Second
	handoffMax     = 1 << 20 // bytes of a request or response
	maxHandoffs    = 64      // connections
)

// admission is a process's request for a slot, answered by the loop.
type admission struct{ done chan core.Admit }

func (a *admission) answer(e core.Admit) { a.done <- e }

// serveHandoff passes the listening socket for clients to processes that an
// operator starts with "join": a descriptor can only travel over a Unix socket.
func (m *Member) serveHandoff() error {
	l, err := m.dir.ListenHandoff()
	if err != nil {
		return err
	}
	g := gate.New("hand-off", gate.Limits{Total: maxHandoffs}, m.logger)
	go func() {
		for {
			c, err := l.AcceptUnix()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				m.logger.Warn("hand-off", "error", err)
				time.Sleep(10 * time.Millisecond) // out of descriptors, for example
				continue
			}
			admitted := g.Admit(c)
			if admitted == nil {
				_ = c.Close()
				continue
			}
			go func() {
				defer admitted.Close()
				if err := m.handOff(c); err != nil {
					m.logger.Warn("a process could not join", "error", err)
				}
			}()
		}
	}()
	return nil
}

// handOff answers requests on one connection. One without a member asks only
// how things stand; one with a member joins.
func (m *Member) handOff(c *net.UnixConn) error {
	_ = c.SetDeadline(time.Now().Add(handoffTimeout))
	_, uid, err := proc.PeerUID(c)
	if err != nil {
		return err
	}
	for asked := range 2 {
		payload, files, err := proc.ReceiveFiles(c, handoffMax)
		if asked > 0 && errors.Is(err, io.EOF) {
			return nil // it saw how things stand, and that was no reason to join
		}
		for _, f := range files {
			_ = f.Close() // none is asked for
		}
		if err != nil {
			return err
		}
		var req wire.HandoffRequest
		if err := proto.Unmarshal(payload, &req); err != nil {
			return fmt.Errorf("hand-off request: %w", err)
		}
		resp := &wire.HandoffResponse{Roster: m.rosterBytes(), Config: m.config().Encode(), Source: os.Getenv(member.SourceEnv)}
		var pass []*os.File
		if uid != os.Getuid() {
			resp = &wire.HandoffResponse{Error: fmt.Sprintf("the cluster runs as uid %d, not %d", os.Getuid(), uid)}
		} else if req.Member != nil {
			if resp.Slot, err = m.admit(&req); err != nil {
				resp.Error = err.Error()
			} else {
				resp.Roster = m.rosterBytes()
				resp.Listeners, resp.HasStderr = m.listeners.Names(), true
				pass = append(m.listeners.Files(), member.Stderr)
			}
		}
		b, err := proto.Marshal(resp)
		if err != nil {
			return err
		}
		if err := proc.SendFiles(c, b, pass...); err != nil {
			return err
		}
		if req.Member != nil || resp.Error != "" {
			return nil
		}
	}
	return nil
}

func (m *Member) admit(req *wire.HandoffRequest) (uint32, error) {
	peer, err := wire.ToMember(req.Member)
	if err != nil {
		return 0, err
	}
	if req.BootId != m.bootID {
		return 0, m.otherHost(peer.Address)
	}
	a := &admission{done: make(chan core.Admit, 1)}
	m.post(core.JoinRequested{Member: peer, Ref: a})
	select {
	case e := <-a.done:
		if e.Slot == 0 {
			return 0, errors.New(e.Reason)
		}
		return uint32(e.Slot), nil
	case <-time.After(handoffTimeout):
		return 0, errors.New("the leader did not answer in time")
	case <-m.ended:
		return 0, errors.New("the leader is ending")
	}
}
