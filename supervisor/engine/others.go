package engine

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"

	"github.com/dynast-io/dynast/shared/member/hosts"
)

// others asks the other hosts how they are.
type others struct {
	e       *Engine
	mu      sync.Mutex
	clients map[string]*hosts.Client // by address
	heard   map[types.ID]heard
	foreign sync.Once // the log says it once
}

// heard is the last answer of a host, and the error of the last question.
type heard struct {
	at     time.Time
	status *hosts.Status
	err    error
	// committed is what this host knew as committed at that time. Other hosts may answer much later.
	committed uint64
}

func newOthers(e *Engine) *others {
	return &others{e: e, clients: map[string]*hosts.Client{}, heard: map[types.ID]heard{}}
}

const (
	// askEvery is how often a host asks the others, and askTimeout bounds one question.
	askEvery   = time.Second
	askTimeout = 2 * time.Second
)

// watch asks the other hosts until ctx ends, so that it is known when each was last heard of.
func (o *others) watch(ctx context.Context) {
	o.ask(ctx, false)
	every(ctx, askEvery, func() { o.ask(ctx, false) })
}

// ask asks all other hosts at the same time. With details they send the tree of their processes.
func (o *others) ask(ctx context.Context, details bool) {
	var wg sync.WaitGroup
	self := o.e.server.MemberID()
	members := o.e.server.Cluster().Members()
	for _, m := range members {
		if m.ID == self || len(m.PeerURLs) == 0 {
			continue
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			path := hosts.PathStatus
			if details {
				path = hosts.WithTrees(path)
			}
			var s hosts.Status
			err := o.explain(name(m), o.client(address(m)).Ask(ctx, path, nil, &s))
			o.mu.Lock()
			defer o.mu.Unlock()
			h := o.heard[m.ID]
			if h.err = err; err == nil {
				h.at, h.status, h.committed = time.Now(), &s, o.e.server.CommittedIndex()
			}
			o.heard[m.ID] = h
		})
	}
	wg.Wait()
	o.forget(members)
}

// explain says what to do if a host has another authority. It has formed or joined another cluster since.
func (o *others) explain(name string, err error) error {
	var unknown x509.UnknownAuthorityError
	if !errors.As(err, &unknown) {
		return err
	}
	o.foreign.Do(func() {
		o.e.log.Error("a host belongs to another cluster now, so this host is one of a cluster that was given up: "+
			"stop this host, move its data directory away, and let it join again ('dynast up --join')", "name", name)
	})
	return fmt.Errorf("%s belongs to another cluster now, for example after 'dynast hosts recover': stop this host, move its data directory %s away, and let it join again: %w", name, o.e.dir.Path(), err)
}

// close closes all connections.
func (o *others) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for a, c := range o.clients {
		c.Close()
		delete(o.clients, a)
	}
}

// forget drops what is known of hosts that are no members any more.
func (o *others) forget(members []*membership.Member) {
	o.mu.Lock()
	defer o.mu.Unlock()
	here := map[types.ID]bool{}
	addresses := map[string]bool{}
	for _, m := range members {
		here[m.ID] = true
		addresses[address(m)] = true
	}
	maps.DeleteFunc(o.heard, func(id types.ID, _ heard) bool { return !here[id] })
	for a, c := range o.clients {
		if !addresses[a] {
			c.Close()
			delete(o.clients, a)
		}
	}
}

func (o *others) client(address string) *hosts.Client {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.clients[address] == nil {
		o.clients[address] = hosts.Dial(address, o.e.authority.HostClientTLS())
	}
	return o.clients[address]
}

func (o *others) last(id types.ID) heard {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.heard[id]
}

// List describes all hosts as this one sees them.
func (e *Engine) list(ctx context.Context, details bool) *hosts.List {
	e.others.ask(ctx, details)
	self := e.status(ctx, details)
	l := &hosts.List{Schema: hosts.ListSchema, At: time.Now(), Cluster: e.host.Cluster, Self: e.host.Name, Writable: e.server.Leader() != 0, Hosts: []hosts.Host{}}
	members := e.server.Cluster().Members()
	slices.SortFunc(members, func(a, b *membership.Member) int { return strings.Compare(name(a), name(b)) })
	voters := 0
	for _, m := range members {
		h := hosts.Host{Name: name(m), Address: address(m), ID: m.ID.String(), Lag: -1}
		committed := self.Committed
		switch {
		case m.ID == e.server.MemberID():
			h.Reachable, h.LastContact, h.Status = true, l.At, self
		default:
			last := e.others.last(m.ID)
			h.LastContact, h.Status, committed = last.at, last.status, last.committed
			if h.Reachable = last.err == nil && last.status != nil; !h.Reachable {
				h.Error = "not asked yet"
				if last.err != nil {
					h.Error = last.err.Error()
					h.Foreign = errors.As(last.err, new(x509.UnknownAuthorityError))
				}
			}
		}
		if h.Reachable {
			h.Lag = max(int64(committed)-int64(h.Status.Applied), 0)
		}
		h.Role = e.role(m, h)
		if !m.IsLearner {
			voters++
			if h.Reachable {
				l.Voting++
			}
		}
		l.Hosts = append(l.Hosts, h)
	}
	l.Quorum = voters/2 + 1
	for i := range l.Hosts {
		l.Hosts[i].IfLost = ifLost(l, l.Hosts[i], voters)
	}
	l.Verdict = verdict(l)
	return l
}

func (e *Engine) role(m *membership.Member, h hosts.Host) string {
	switch {
	case m.IsLearner && pending(m) && h.Status == nil:
		return hosts.RoleJoining
	case m.IsLearner:
		return hosts.RoleLearner
	case m.ID == e.server.Leader():
		return hosts.RoleLeader
	case h.Reachable && h.Status.LeaderID == "":
		return hosts.RoleNoLeader
	}
	return hosts.RoleFollower
}

// ifLost says what the loss of a host would mean now.
func ifLost(l *hosts.List, h hosts.Host, voters int) string {
	votes := h.Votes()
	left := l.Voting
	if votes && h.Reachable {
		left--
	}
	switch {
	case l.Voting < l.Quorum:
		return fmt.Sprintf("writes are refused already: %d of %d voting hosts answer, and %d are needed", l.Voting, voters, l.Quorum)
	case !votes:
		return "nothing: it does not vote yet"
	case !h.Reachable:
		return "nothing more: it does not answer already"
	case voters == 1:
		return "everything stops, and the data is lost with its disk"
	case left < l.Quorum:
		return fmt.Sprintf("writes stop: %d of %d voting hosts would be left, and %d are needed", left, voters, l.Quorum)
	case h.Role == hosts.RoleLeader:
		return "writes pause for about one election timeout"
	}
	return "nothing stops"
}

// pending reports whether a host was admitted, and has not told the others yet where it serves clients.
func pending(m *membership.Member) bool { return len(m.ClientURLs) == 0 }

// name returns the name of a host. One that etcd's own command has added has none until it starts, so its
// address stands in.
func name(m *membership.Member) string {
	if m.Name != "" {
		return m.Name
	}
	return address(m)
}

// address returns the IP:PORT of a host.
func address(m *membership.Member) string {
	if len(m.PeerURLs) == 0 {
		return ""
	}
	return hostOf(m.PeerURLs[0])
}
