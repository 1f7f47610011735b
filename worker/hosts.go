package worker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/member"
	api "github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/shared/member/pki"
	"github.com/dynast-io/dynast/shared/observe/events"
	"github.com/dynast-io/dynast/shared/replica/restore"
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

	mu sync.Mutex // held while the mode changes
}

// do carries out a command. path is one of package hosts.
func (h *hosts) do(ctx context.Context, path string, body []byte) ([]byte, error) {
	if path == api.PathInit {
		return answer(body, func(q api.InitRequest) (*api.InitResponse, error) { return h.init(ctx, q) })
	}
	host, err := h.Dir.ReadHost()
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, errors.New("this is a single host; 'dynast hosts init' makes it the first of several")
	case err != nil:
		return nil, err
	case host.Removed:
		return nil, fmt.Errorf("the other hosts have removed this host (%s) from the cluster; stop it, remove its data directory %s, and let it join again", host.Name, h.Dir.Path())
	}
	c := api.DialLocal(h.Dir)
	defer c.Close()
	var in any
	if len(body) > 0 {
		in = json.RawMessage(body)
	}
	var out json.RawMessage
	if err := c.Ask(ctx, path, in, &out); err != nil {
		if errors.Is(err, api.ErrUnreachable) {
			return nil, fmt.Errorf("the engine of this host does not answer (%w); 'dynast ps' shows its state, and 'dynast logs %s' why", err, member.EngineService)
		}
		return nil, err
	}
	return out, nil
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

const (
	// engineStart is how long the engine may take to serve clients after the switch.
	engineStart = 30 * time.Second
	enginePause = 10 * time.Millisecond
)

// init makes this host the first of several. Writes pause while the database is copied into an etcd
// member. The host's record is written when that copy is complete and was compared; it is the moment
// of the switch. If anything fails before, clients are served from the members' store again. A leader
// that takes over before that moment does the same, and one that takes over after it starts the
// engine.
func (h *hosts) init(ctx context.Context, q api.InitRequest) (*api.InitResponse, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.Leading.Load() {
		return nil, errNotLeading
	}
	if host, err := h.Dir.ReadHost(); err == nil {
		if host.Address == q.Address && (q.Name == "" || host.Name == q.Name) {
			return &api.InitResponse{Name: host.Name, Address: host.Address}, h.awaitEngine(ctx) // a repetition
		}
		return nil, fmt.Errorf("this host is one of several already, as %s at %s", host.Name, host.Address)
	}
	host, err := h.plan(q)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	h.tell(events.HostsSwitch, "writes pause for the switch to several hosts")
	h.clients.Stop()
	moved, err := h.move(ctx, host)
	if err == nil {
		err = h.Dir.WriteHost(host)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("nothing was changed, and clients are served as before: %w", err), h.goBack(host))
	}
	if err := h.programs.refresh(ctx); err != nil {
		return nil, fmt.Errorf("the switch is done, but the engine cannot be supervised yet: %w", err)
	}
	if err := h.awaitEngine(ctx); err != nil {
		return nil, fmt.Errorf("the switch is done, but the engine does not serve yet: %w; 'dynast logs %s' shows why", err, member.EngineService)
	}
	moved.Paused = time.Since(began)
	h.tell(events.HostsSwitch, fmt.Sprintf("this host is the first of several, as %s at %s; writes paused for %s", host.Name, host.Address, moved.Paused.Round(time.Millisecond)))
	go h.Guarded(h.empty)
	return moved, nil
}

// plan checks the request and prepares what does not concern clients.
func (h *hosts) plan(q api.InitRequest) (datadir.Host, error) {
	host := datadir.Host{Name: q.Name, Address: q.Address, HasData: true}
	if host.Name == "" {
		host.Name = h.Settings.Now().Hosts.Name
	}
	if host.Name == "" {
		name, err := os.Hostname()
		if err != nil {
			return host, fmt.Errorf("the name of this host: %w; pass --name", err)
		}
		host.Name = name
	}
	if err := config.CheckHostName(host.Name); err != nil {
		return host, fmt.Errorf("the name %q: %w; pass another --name", host.Name, err)
	}
	if err := config.CheckHostAddress(host.Address); err != nil {
		return host, fmt.Errorf("--address %q: %w; want the IP:PORT at which the other hosts reach this one, for example 10.0.0.1:2380", host.Address, err)
	}
	l, err := net.Listen("tcp", host.Address)
	if err != nil {
		return host, fmt.Errorf("--address: %w", bindError(host.Address, err, "--address"))
	}
	if err := l.Close(); err != nil {
		return host, err
	}
	id := make([]byte, 8)
	_, _ = rand.Read(id) // it never fails
	host.Cluster = "dynast-" + hex.EncodeToString(id)
	host.Members = map[string]string{host.Name: host.Address}
	// An interrupted attempt leaves a directory without a record.
	if err := os.RemoveAll(h.Dir.Hosts()); err != nil {
		return host, err
	}
	_, err = pki.LoadOrCreate(h.Dir.HostsPKI(), host.Cluster)
	return host, err
}

// move copies the database into the data directory of an etcd.
func (h *hosts) move(ctx context.Context, host datadir.Host) (*api.InitResponse, error) {
	for h.replica.Pending() > 0 { // requests whose clients were not waited for
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	path := filepath.Join(h.Dir.Hosts(), "switch.db")
	defer os.Remove(path)
	st := h.replica.Current().Store
	snap, err := st.Snapshot()
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, errors.Join(err, snap.Close())
	}
	_, err = snap.WriteTo(f)
	if err = errors.Join(err, f.Close(), snap.Close()); err != nil {
		return nil, err
	}
	err = restore.Member(ctx, restore.MemberOptions{Database: path, DataDir: h.Dir.Engine(), Name: host.Name, PeerURL: "https://" + host.Address,
		Token: host.Cluster, Logger: h.Logs.Zap("restore")})
	return &api.InitResponse{Name: host.Name, Address: host.Address, Revision: st.Revision(), Bytes: snap.Size}, err
}

// goBack serves clients from the members' store again.
func (h *hosts) goBack(host datadir.Host) error {
	if err := h.Dir.RemoveHost(); err != nil {
		// Whether the switch happened is decided by a file that cannot be removed.
		h.Fatal(core.ExitError, err)
		return err
	}
	h.tell(events.HostsSwitch, "the switch to several hosts failed; clients are served as before")
	serveHTTP, err := h.clients.Serve()
	if err != nil {
		h.Fatal(core.ExitError, err)
		return err
	}
	go h.Guarded(serveHTTP)
	return os.RemoveAll(h.Dir.Hosts())
}

// awaitEngine waits until the engine answers and knows a leader.
func (h *hosts) awaitEngine(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, engineStart)
	defer cancel()
	c := api.DialLocal(h.Dir)
	defer c.Close()
	for {
		var s api.Status
		err := c.Ask(ctx, api.PathStatus, nil, &s)
		if err == nil && s.LeaderID != "" {
			return nil
		}
		select {
		case <-time.After(enginePause):
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

// empty removes the keys from the members' store. The engine has them, and the members would keep them
// in memory for nothing.
func (h *hosts) empty() {
	ctx := h.Lifetime()
	all := []byte{0}
	requests := []*pb.InternalRaftRequest{{AuthDisable: &pb.AuthDisableRequest{}}}
	for _, l := range h.replica.Current().Store.Lessor().Leases() {
		requests = append(requests, &pb.InternalRaftRequest{LeaseRevoke: &pb.LeaseRevokeRequest{ID: int64(l.ID)}})
	}
	requests = append(requests, &pb.InternalRaftRequest{DeleteRange: &pb.DeleteRangeRequest{Key: all, RangeEnd: all}})
	for _, r := range requests {
		if _, err := h.replica.Proposals.Propose(ctx, r); err != nil {
			h.Log.Warn("the members keep their copy of the keys in memory until the next start", "error", err)
			return
		}
	}
	compact := &pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: h.replica.Current().Store.Revision()}}
	if _, err := h.replica.Proposals.Propose(ctx, compact); err != nil {
		h.Log.Warn("the members keep the history of the keys in memory", "error", err)
		return
	}
	if _, err := h.Request(ctx, func(ref chan core.Answer) core.Event { return core.DefragmentRequested{Ref: ref} }); err != nil {
		h.Log.Warn("the members' databases keep their size on disk", "error", err)
	}
}

func (h *hosts) tell(kind, detail string) { h.Tell(kind, detail) }
