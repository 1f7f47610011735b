package worker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dynast-io/dynast/shared/host/crash"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/member"
	api "github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/shared/observe/events"
)

// recover forms a new cluster of this host alone, from its own copy. The leader only records that it is
// wanted, and restarts the engine, which does the rest; see package engine.
func (h *hosts) recover(ctx context.Context, q api.RecoverRequest) (*api.Recovery, error) {
	if !h.mu.TryLock() {
		return nil, errors.New("another change of this host is under way; try again")
	}
	defer h.mu.Unlock()
	if !h.programs.leads() {
		return nil, errNotLeading
	}
	host, err := h.Dir.ReadHost()
	if err != nil {
		return nil, err
	}
	if host.Recover { // a repetition
		return h.finishRecovery(ctx, host)
	}
	var l api.List
	if err := h.askPatiently(ctx, api.PathList, &l); err != nil {
		return nil, err
	}
	r := describeCopy(&l)
	if r == nil {
		return nil, errors.New("the engine does not say where its copy ends")
	}
	if host.Recovery != nil && host.Recovery.To == host.Cluster && len(l.Hosts) == 1 {
		r.Cluster, r.NewCluster, r.Revision = host.Recovery.From, host.Cluster, host.Recovery.Revision
		return r, nil // a repetition
	}
	r.Refused = refuseRecovery(&l, r, q.Force)
	switch {
	case q.DryRun:
		return r, nil
	case r.Refused != "":
		return nil, errors.New(r.Refused)
	}
	id := make([]byte, 8)
	_, _ = rand.Read(id) // it never fails
	host, err = h.Dir.UpdateHost(func(host *datadir.Host) {
		host.Recover = true
		host.Recovery = &datadir.Recovery{From: host.Cluster, To: "dynast-" + hex.EncodeToString(id), Revision: r.Revision, Asked: time.Now()}
		host.Members = map[string]string{}
		for _, m := range l.Hosts {
			host.Members[m.Name] = m.Address
		}
		host.Members[host.Name] = host.Address
	})
	if err != nil {
		return nil, err
	}
	h.Tell(events.HostsSwitch, fmt.Sprintf("forming a new cluster of this host alone, from revision %d", r.Revision))
	crash.At("recover-asked")
	if err := h.programs.killEngine(ctx); err != nil {
		return nil, fmt.Errorf("the engine must be restarted: %w", err)
	}
	crash.At("recover-restarted")
	done, err := h.finishRecovery(ctx, host)
	if err != nil {
		return nil, err
	}
	r.NewCluster = done.NewCluster
	return r, nil
}

// describeCopy says where the copy of this host ends. It returns nil if the list does not say so.
func describeCopy(l *api.List) *api.Recovery {
	r := &api.Recovery{Schema: api.RecoverySchema, Name: l.Self, Cluster: l.Cluster, Needed: l.Quorum, Answer: l.Voting, Hosts: l.Hosts}
	for _, m := range l.Hosts {
		if m.Name != l.Self || m.Status == nil {
			continue
		}
		s := m.Status
		r.Address, r.Revision, r.Committed, r.Applied, r.Term = m.Address, s.Revision, s.Committed, s.Applied, s.Term
		r.LeaderSeen, r.Started, r.LogWritten, r.Alarms = s.LeaderSeen, s.Started, s.LogWritten, s.Alarms
		r.Missing = "every write that was acknowledged after this host last heard of the leader may be missing. A write is acknowledged by a majority, so it may be on the lost hosts only"
		if s.Role == api.RoleLeader {
			r.Missing = "nothing that was acknowledged while this host led"
		}
		return r
	}
	return nil
}

// refuseRecovery returns the reason for which a recovery would do harm, or nothing.
func refuseRecovery(l *api.List, r *api.Recovery, force bool) string {
	if len(l.Hosts) == 1 {
		return "this host is alone in its cluster, so no majority is lost; 'dynast hosts' shows its state"
	}
	if l.Voting >= l.Quorum {
		return fmt.Sprintf("a majority answers (%d voting hosts, and %d are needed), so nothing is lost and nothing was changed: remove dead hosts with 'dynast hosts remove NAME'", l.Voting, l.Quorum)
	}
	for _, m := range l.Hosts {
		if m.Name == l.Self {
			if m.Role == api.RoleLearner || m.Role == api.RoleJoining {
				return "the copy of this host is not complete, because it does not vote yet; run the command on a host that votes. If there is none, 'dynast snapshot restore' makes a new store from " +
					"the directory hosts/engine of this one's data directory"
			}
			continue
		}
		if m.Foreign && !force {
			return fmt.Sprintf("%s belongs to another cluster now, so the recovery was probably done there, and a second one would form a second cluster: stop this host, move its data directory away, "+
				"and let it join there; --force forms a cluster of this host all the same", m.Name)
		}
		if s := m.Status; m.Reachable && s != nil && m.Role != api.RoleLearner && !force &&
			(s.Committed > r.Committed || s.Applied > r.Applied || s.Revision > r.Revision) {
			return fmt.Sprintf("the copy of %s is longer (it ends at revision %d, and this one at %d): run the command there, or discard that copy with --force", m.Name, s.Revision, r.Revision)
		}
	}
	return ""
}

// finishRecovery waits until the new cluster serves.
func (h *hosts) finishRecovery(ctx context.Context, host datadir.Host) (*api.Recovery, error) {
	ctx, cancel := context.WithTimeout(ctx, engineStart)
	defer cancel()
	for {
		now, err := h.Dir.ReadHost()
		if err == nil && now.Recovery == nil {
			return nil, errors.New("the recovery was given up, because a majority of the hosts answers again; nothing was changed")
		}
		if err == nil && !now.Recover {
			var l api.List
			if err := h.ask(ctx, api.PathList, nil, &l); err == nil && l.Cluster == now.Cluster && l.Writable {
				r := describeCopy(&l)
				if r != nil {
					r.Cluster, r.NewCluster = now.Recovery.From, now.Cluster
					h.Tell(events.HostsSwitch, "the new cluster serves clients")
					return r, nil
				}
			}
		}
		select {
		case <-time.After(enginePause):
		case <-ctx.Done():
			state, _ := h.programs.engineNow(context.WithoutCancel(ctx))
			return nil, fmt.Errorf("the new cluster of %s does not serve yet (%s): the command can be repeated; 'dynast logs %s' shows why", host.Name, strings.TrimSpace(state.reason), member.EngineService)
		}
	}
}

// continueRecovery restarts an engine that has not begun the recovery which the leader before has
// recorded.
func (h *hosts) continueRecovery() {
	h.mu.Lock()
	defer h.mu.Unlock()
	ctx := h.Lifetime()
	for {
		host, err := h.Dir.ReadHost()
		if err != nil || !host.Recover {
			return
		}
		var s api.Status
		if err := h.ask(ctx, api.PathStatus, nil, &s); err == nil && s.Started.Before(host.Recovery.Asked) {
			if err := h.programs.killEngine(ctx); err != nil {
				h.Log.Error("the engine must be restarted for the recovery", "error", err)
			}
		}
		select {
		case <-time.After(continuePause):
		case <-ctx.Done():
			return
		}
	}
}

// continuePause is how long a killed engine may take to begin before continueRecovery looks again.
const continuePause = time.Second
