package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/member"
	api "github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/shared/observe/events"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/worker/replica"
	"github.com/dynast-io/dynast/worker/serve"
	"github.com/dynast-io/dynast/worker/state"
)

// hosts carries out commands about the cluster of hosts, in the leader. Most of them it passes on to
// the engine. It changes the mode of this host itself, because that concerns the store of the
// members.
type hosts struct {
	*state.Shared
	replica  *replica.Replica
	clients  *serve.Clients
	programs *programs
	sockets  *member.Sockets

	mu       sync.Mutex // held while the mode changes
	emptying sync.Mutex // held while the members' store is emptied
}

// do carries out a command. path is one of package hosts.
func (h *hosts) do(ctx context.Context, path string, body []byte) ([]byte, error) {
	switch path {
	case api.PathInit:
		return answer(body, func(q api.InitRequest) (*api.InitResponse, error) { return h.init(ctx, q) })
	case api.PathLeave:
		return answer(body, func(q api.LeaveRequest) (*api.LeaveResponse, error) { return h.leave(ctx, q) })
	}
	host, err := h.Dir.ReadHost()
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, errors.New("this is a single host; 'dynast hosts init' makes it the first of several")
	case err != nil:
		return nil, err
	case host.Removed:
		return nil, h.removedError(host)
	case host.Halted:
		return nil, errors.New("this host is changing between a store of its own and that of several hosts; try again")
	}
	if path == api.PathRecover {
		return answer(body, func(q api.RecoverRequest) (*api.Recovery, error) { return h.recover(ctx, q) })
	}
	var in any
	if len(body) > 0 {
		in = json.RawMessage(body)
	}
	var out json.RawMessage
	if err := h.ask(ctx, path, in, &out); err != nil {
		return nil, err
	}
	return out, nil
}

func (h *hosts) removedError(host datadir.Host) error {
	return fmt.Errorf("this host (%s) is no longer in its cluster: it has left, or the other hosts have removed it. Stop it ('dynast stop'), move its data directory %s away, and let it join again or start it as a new host", host.Name, h.Dir.Path())
}

// ask asks the engine of this host.
func (h *hosts) ask(ctx context.Context, path string, in, out any) error {
	c := api.DialLocal(h.Dir)
	defer c.Close()
	err := c.Ask(ctx, path, in, out)
	if errors.Is(err, api.ErrUnreachable) {
		return fmt.Errorf("the engine of this host does not answer (%w); 'dynast ps' shows its state, and 'dynast logs %s' why", err, member.EngineService)
	}
	return err
}

func answer[In, Out any](body []byte, f func(In) (Out, error)) ([]byte, error) {
	var in In
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, err
	}
	out, err := f(in)
	if err != nil {
		return nil, err
	}
	return json.Marshal(out)
}

// resume goes on after a takeover or a start with what an earlier leader has not finished. It returns
// true if the engine serves clients, and false if this member does. It is called before clients are
// served.
func (h *hosts) resume() bool {
	host, err := h.Dir.ReadHost()
	switch {
	case errors.Is(err, os.ErrNotExist):
		go h.Guarded(h.tidy)
		return false
	case err != nil:
		return true // nothing is known of the engine, so nothing old may be served
	}
	if host.Halted {
		// The engine has everything, and nobody else was ever served.
		err := h.Dir.DropBack()
		if err == nil {
			host, err = h.Dir.UpdateHost(func(host *datadir.Host) { host.Halted, host.HaltedAt = false, time.Time{} })
		}
		if err != nil {
			h.Fatal(core.ExitError, err)
			return true
		}
		h.Tell(events.HostsSwitch, "the leader before was interrupted while it changed the mode of this host; the engine serves clients as before")
	}
	switch {
	case host.Removed:
		h.refuseClients()
	case host.Recover:
		go h.Guarded(h.continueRecovery)
	case host.Served:
		if err := h.Dir.EndBeginning(); err != nil {
			h.Log.Error("the switch to several hosts", "error", err)
		}
		go h.Guarded(h.empty)
	case host.HasData && len(host.Members) == 1:
		go h.Guarded(h.continueInit)
	}
	return true
}

// continueInit finishes the switch that the leader before had begun.
func (h *hosts) continueInit() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.finishInit(h.Lifetime()); err != nil {
		h.Log.Error("the switch to several hosts", "error", err)
	}
}

// tidy removes what an interrupted switch or a cluster that this host has left has in hosts/.
func (h *hosts) tidy() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.Dir.ManyHosts() {
		return
	}
	left, err := h.Dir.ReadLeft()
	if err == nil && left.Served.IsZero() {
		left.Served = time.Now()
		if err = h.Dir.WriteLeft(left); err == nil {
			h.Tell(events.HostsSwitch, fmt.Sprintf("this host has left the cluster of hosts and serves clients alone, from revision %d on; writes paused for %s",
				left.Revision, left.Served.Sub(left.Stopped).Round(time.Millisecond)))
		}
	}
	if err == nil || errors.Is(err, os.ErrNotExist) {
		err = h.Dir.DropHosts()
	}
	if err != nil {
		h.Log.Warn("what is left of a cluster of hosts takes space", "directory", h.Dir.Hosts(), "error", err)
	}
}

// refuseClients makes connections to the address for clients fail at once. Otherwise they would wait
// for a server that never comes. It takes effect for all processes that share the socket.
func (h *hosts) refuseClients() {
	raw, err := h.sockets.File(member.ClientListener).SyscallConn()
	if err == nil {
		var inner error
		err = raw.Control(func(fd uintptr) { inner = unix.Shutdown(int(fd), unix.SHUT_RD) })
		err = errors.Join(err, inner)
	}
	if err != nil {
		h.Log.Warn("clients that connect here wait in vain until this host is stopped", "error", err)
	}
}
