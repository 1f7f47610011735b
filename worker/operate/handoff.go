package operate

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/dynast-io/dynast/shared/client/gate"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/worker/files"
)

// A hand-off passes the listening sockets to a joining process.
const (
	HandoffTimeout = 5 * time.Second // for the whole hand-off
	HandoffMax     = 1 << 20         // bytes of a request or response
)

// Admission is a joining process's request for a slot. The loop answers it.
type Admission struct{ done chan core.Admit }

// Answer delivers the loop's decision.
func (a *Admission) Answer(e core.Admit) { a.done <- e }

// serveHandoff passes the listening sockets to processes that an operator starts with "join".
// Descriptors can only be passed over a Unix socket.
func (o *Operators) serveHandoff() error {
	l, err := o.Dir.ListenHandoff()
	if err != nil {
		return err
	}
	g := gate.New("hand-off", gate.Limits{Total: o.shares.Handoffs}, o.Log)
	go func() {
		for {
			c, err := l.AcceptUnix()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				o.Log.Warn("cannot accept a joining process", "error", err)
				time.Sleep(10 * time.Millisecond) // no free descriptors, for example
				continue
			}
			admitted := g.Admit(c)
			if admitted == nil {
				_ = c.Close()
				continue
			}
			go func() {
				defer admitted.Close()
				if err := o.handOff(c); err != nil {
					o.Log.Warn("a process could not join", "error", err)
				}
			}()
		}
	}()
	return nil
}

// handOff answers requests on one connection. A request without a member asks for the roster
// and the configuration. A request with a member joins. A member asks for sockets that it lacks.
func (o *Operators) handOff(c *net.UnixConn) error {
	_ = c.SetDeadline(time.Now().Add(HandoffTimeout))
	_, uid, err := proc.PeerUID(c)
	if err != nil {
		return err
	}
	for asked := range 2 {
		payload, files, err := proc.ReceiveFiles(c, HandoffMax)
		if asked > 0 && errors.Is(err, io.EOF) {
			return nil // it has read the roster and decided not to join
		}
		for _, f := range files {
			_ = f.Close() // no descriptor is expected
		}
		if err != nil {
			return err
		}
		var req wire.HandoffRequest
		if err := proto.Unmarshal(payload, &req); err != nil {
			return fmt.Errorf("hand-off request: %w", err)
		}
		resp := &wire.HandoffResponse{Roster: o.RosterBytes(), Config: o.Settings.Now().WithoutServices().Encode(), Source: os.Getenv(member.SourceEnv)}
		var pass []*os.File
		if uid != os.Getuid() {
			resp = &wire.HandoffResponse{Error: fmt.Sprintf("the cluster runs as uid %d, not %d", os.Getuid(), uid)}
		} else if all := o.sockets.All(); req.Sockets {
			resp.Listeners, pass = all.Names(), all.Files()
		} else if req.Member != nil {
			if resp.Slot, err = o.admit(&req); err != nil {
				resp.Error = err.Error()
			} else {
				resp.Roster = o.RosterBytes()
				resp.Listeners, resp.HasStderr = all.Names(), true
				pass = append(all.Files(), member.Stderr)
			}
		}
		b, err := proto.Marshal(resp)
		if err != nil {
			return err
		}
		if err := proc.SendFiles(c, b, pass...); err != nil {
			return err
		}
		if req.Member != nil || req.Sockets || resp.Error != "" {
			return nil
		}
	}
	return nil
}

func (o *Operators) admit(req *wire.HandoffRequest) (uint32, error) {
	peer, err := wire.ToMember(req.Member)
	if err != nil {
		return 0, err
	}
	if req.BootId != o.Self.BootID {
		return 0, o.OtherHost(peer.Address)
	}
	release, err := o.files.Promise(int(files.Followers(o.Roster())) + 1)
	if err != nil {
		return 0, err
	}
	defer release()
	a := &Admission{done: make(chan core.Admit, 1)}
	o.Post(core.JoinRequested{Member: peer, Ref: a})
	select {
	case e := <-a.done:
		if e.Slot == 0 {
			return 0, errors.New(e.Reason)
		}
		return uint32(e.Slot), nil
	case <-time.After(HandoffTimeout):
		return 0, errors.New("the leader did not answer in time")
	case <-o.Ended():
		return 0, errors.New("the leader is ending")
	}
}
