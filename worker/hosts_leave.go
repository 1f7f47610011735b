package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/crash"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member"
	api "github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/shared/observe/events"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/worker/replica"
)

// leave takes this host out of the cluster.
func (h *hosts) leave(ctx context.Context, q api.LeaveRequest) (*api.LeaveResponse, error) {
	switch {
	case h.mu.TryLock():
		defer h.mu.Unlock()
	case q.Wait:
		return &api.LeaveResponse{}, nil
	default:
		return nil, errors.New("another change of this host is under way; try again")
	}
	if !h.programs.leads() {
		return nil, errNotLeading
	}
	host, err := h.Dir.ReadHost()
	switch {
	case errors.Is(err, os.ErrNotExist):
		return h.hasLeft(q)
	case err != nil:
		return nil, err
	case host.Removed && q.Last:
		return nil, h.removedError(host)
	case host.Removed:
		return &api.LeaveResponse{Name: host.Name, Address: host.Address, Done: true}, nil // a repetition
	case host.Halted: // only until the members have stopped
		return &api.LeaveResponse{Name: host.Name, Address: host.Address}, nil
	case q.Wait:
		return nil, fmt.Errorf("this host has not gone back to a single host, because it was interrupted; its engine serves as before. Repeat the command; 'dynast events' shows what happened")
	}
	var l api.List
	if err := h.askPatiently(ctx, api.PathList, &l); err != nil {
		return nil, err
	}
	if q.Last {
		return h.leaveLast(ctx, host, &l)
	}
	return h.leaveOthers(ctx, host, &l)
}

// askPatiently asks an engine that may just be starting.
func (h *hosts) askPatiently(ctx context.Context, path string, out any) error {
	for deadline := time.Now().Add(askPatience); ; {
		err := h.ask(ctx, path, nil, out)
		if !errors.Is(err, api.ErrUnreachable) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-time.After(enginePause):
		case <-ctx.Done():
			return err
		}
	}
}

// askPatience is how long an engine may take to answer after its start.
const askPatience = 10 * time.Second

// hasLeft answers a repeated request.
func (h *hosts) hasLeft(q api.LeaveRequest) (*api.LeaveResponse, error) {
	left, err := h.Dir.ReadLeft()
	if errors.Is(err, os.ErrNotExist) || err == nil && !q.Last {
		return nil, errors.New("this is a single host already; there is nothing to leave")
	}
	if err != nil {
		return nil, err
	}
	r := &api.LeaveResponse{Name: left.Name, Revision: left.Revision, Bytes: left.Bytes, Done: !left.Served.IsZero()}
	if r.Done {
		r.Paused = left.Served.Sub(left.Stopped)
	}
	return r, nil
}

// leaveOthers removes this host from the cluster, which goes on without it.
func (h *hosts) leaveOthers(ctx context.Context, host datadir.Host, l *api.List) (*api.LeaveResponse, error) {
	if len(l.Hosts) == 1 {
		return nil, fmt.Errorf("%s is the last host, and its data would be lost for clients: 'dynast hosts leave --last' goes back to a single host and keeps the data", host.Name)
	}
	removeErr := h.ask(ctx, api.PathRemove, api.NameRequest{Name: host.Name}, nil)
	// The engine ends soon after it was removed, perhaps before its answer arrives.
	for deadline := time.Now().Add(removedPatience); ; {
		now, err := h.Dir.ReadHost()
		switch {
		case err != nil:
			return nil, err
		case now.Removed:
			h.refuseClients()
			h.Tell(events.HostsSwitch, "this host has left the cluster of hosts; it serves no clients any more")
			return &api.LeaveResponse{Name: host.Name, Address: host.Address, Done: true}, h.programs.refresh(ctx)
		case removeErr != nil && (!errors.Is(removeErr, api.ErrUnreachable) || time.Now().After(deadline)):
			return nil, removeErr
		case time.Now().After(deadline):
			return nil, fmt.Errorf("the other hosts have removed %s, but its engine does not end; 'dynast logs %s' shows why", host.Name, member.EngineService)
		}
		select {
		case <-time.After(enginePause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// removedPatience is how long the engine may take to end after it was removed.
const removedPatience = 15 * time.Second

// leaveLast goes back to a single host's store. The engine is stopped, and a process of its own makes
// the new store from the engine's data. When that is complete and was compared, all members stop. Then
// this process executes its program again, puts the new store in its place and begins as a new leader.
// The moment of the switch is the removal of host.json; see datadir.TakeBack. A leader that takes over
// before all members have stopped goes back to the engine, and a start after that goes on.
func (h *hosts) leaveLast(ctx context.Context, host datadir.Host, l *api.List) (*api.LeaveResponse, error) {
	if err := isLast(host, l); err != nil {
		return nil, err
	}
	if !host.Served {
		return nil, errors.New("the engine has not served clients yet; try again when 'dynast hosts' shows it as the leader")
	}
	if err := h.Dir.DropBack(); err != nil {
		return nil, err
	}
	h.Tell(events.HostsSwitch, "writes pause for the way back to a single host")
	crash.At("leave-begin")
	err := h.shut(ctx, host)
	if err == nil {
		err = h.halt(ctx)
	}
	crash.At("leave-halted")
	var left datadir.Left
	if err == nil {
		left, err = h.back(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("nothing was changed, and the engine serves clients as before: %w", err), h.unhalt(h.Lifetime()))
	}
	if !h.programs.leads() {
		return nil, errNotLeading // the next leader goes back to the engine
	}
	crash.At("leave-complete")
	h.programs.again.Store(true)
	h.Post(core.StopRequested{Reason: "going back to a single host; this process begins again with the new store"})
	return &api.LeaveResponse{Name: left.Name, Address: host.Address, Revision: left.Revision, Bytes: left.Bytes}, nil
}

// isLast returns an error if there are other hosts.
func isLast(host datadir.Host, l *api.List) error {
	var others []string
	for _, other := range l.Hosts {
		if other.Name != host.Name {
			others = append(others, other.Name)
		}
	}
	if len(others) == 0 {
		return nil
	}
	return fmt.Errorf("%s is not the last host: %s would be left without it. 'dynast hosts leave' takes this host out and leaves the others; "+
		"to go back to a single host here, remove the others first ('dynast hosts remove NAME')", host.Name, strings.Join(others, ", "))
}

// shut makes the engine refuse further hosts, and returns an error if it has let one in meanwhile.
func (h *hosts) shut(ctx context.Context, host datadir.Host) error {
	if err := h.recordHalt(); err != nil {
		return err
	}
	var l api.List
	if err := h.askPatiently(ctx, api.PathList, &l); err != nil {
		return err
	}
	return isLast(host, &l)
}

// back makes the new store in another process.
func (h *hosts) back(ctx context.Context) (left datadir.Left, err error) {
	cmd := exec.CommandContext(ctx, proc.Executable(), "back", "--data-dir", h.Dir.Path())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var problem strings.Builder
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		return left, fmt.Errorf("copy the store: %w: %s", err, strings.TrimSpace(strings.TrimPrefix(problem.String(), "dynast: ")))
	}
	if err := json.Unmarshal(out, &left); err != nil {
		return left, fmt.Errorf("copy the store: %w", err)
	}
	return left, nil
}

// beginAgain executes the program of this process again. The listening sockets stay open. It returns
// only if that fails.
func (m *Member) beginAgain() error {
	crash.At("leave-stopped")
	sockets, err := member.PassOn(m.sockets.All())
	if err != nil {
		return err
	}
	for name, value := range map[string]string{member.AgainEnv: sockets, member.ConfigEnv: string(m.Settings.Start.Encode())} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	return fmt.Errorf("execute the program again: %w", unix.Exec(proc.Executable(), os.Args, os.Environ()))
}

// takeBack puts the store of a single host into its place, if one is complete. The caller has
// cluster.lock. Members that were not told to leave in time, because they were just starting, are
// killed first.
func takeBack(dir *datadir.Dir) error {
	host, err := dir.ReadHost()
	if errors.Is(err, os.ErrNotExist) || err == nil && !host.Halted {
		return nil
	}
	if err != nil {
		return err
	}
	for _, id := range proc.Workers(dir.Path()) {
		if id == proc.Self() {
			continue // it was a worker in its first life
		}
		if p, err := proc.Open(id); err == nil {
			err = p.Kill()
			if err == nil {
				<-p.Done()
			}
			if err := errors.Join(err, p.Close()); err != nil {
				return fmt.Errorf("go back to a single host: a member of this host is still alive: %w", err)
			}
		}
	}
	numbers, err := dir.Slots()
	if err != nil {
		return err
	}
	for _, n := range numbers {
		lock, err := replica.LockWithin(dir.Slot(n).Lock(), proc.ReleaseTime)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("go back to a single host: a process still has slot %d open: %w", n, err)
		}
		if err := lock.Unlock(); err != nil {
			return err
		}
	}
	_, err = dir.TakeBack(func(step string) { crash.At("leave-" + step) })
	return err
}
