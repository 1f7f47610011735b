package worker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/mvcc"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/crash"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/member"
	api "github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/shared/member/pki"
	"github.com/dynast-io/dynast/shared/observe/events"
	"github.com/dynast-io/dynast/shared/replica/restore"
	"github.com/dynast-io/dynast/shared/rules/core"
)

const (
	// engineStart is how long the engine may take to serve clients after the switch.
	engineStart = 30 * time.Second
	enginePause = 10 * time.Millisecond
	// engineTries is how often it may die meanwhile.
	engineTries = 3
)

// init makes this host the first of several. Writes pause while the database is copied into an etcd
// member. The host's record is written when that copy is complete and was compared; it is the moment
// of the switch. If anything fails before, clients are served from the members' store again. A leader
// that takes over before that moment does the same, and one that takes over after it starts the
// engine.
func (h *hosts) init(ctx context.Context, q api.InitRequest) (*api.InitResponse, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.programs.leads() {
		return nil, errNotLeading
	}
	host, err := h.Dir.ReadHost()
	switch {
	case err == nil:
		if host.Address == q.Address && (q.Name == "" || host.Name == q.Name) && !host.Removed {
			return &api.InitResponse{Name: host.Name, Address: host.Address}, h.finishInit(ctx) // a repetition
		}
		return nil, fmt.Errorf("this host is one of several already, as %s at %s", host.Name, host.Address)
	case !errors.Is(err, os.ErrNotExist):
		// The engine may have all the data, and plan would remove it.
		return nil, fmt.Errorf("this host is one of several already, but its record cannot be read; nothing was changed: %w", err)
	}
	host, err = h.plan(q)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	h.Tell(events.HostsSwitch, "writes pause for the switch to several hosts")
	h.clients.Stop()
	crash.At("init-paused")
	moved, err := h.move(ctx, host)
	crash.At("init-copied")
	if err == nil {
		err = h.Dir.WriteHost(host)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("nothing was changed, and clients are served as before: %w", err), h.goBack())
	}
	crash.At("init-recorded")
	if err := h.finishInit(ctx); err != nil {
		return nil, err
	}
	moved.Paused = time.Since(began)
	h.Tell(events.HostsSwitch, fmt.Sprintf("this host is the first of several, as %s at %s; writes paused for %s", host.Name, host.Address, moved.Paused.Round(time.Millisecond)))
	return moved, nil
}

// finishInit starts the engine and waits until it serves. If it cannot, clients are served from the
// members' store again, which still has everything as long as the engine has served nobody. The caller
// holds mu.
func (h *hosts) finishInit(ctx context.Context) error {
	err := h.programs.refresh(ctx)
	if err == nil {
		err = h.awaitEngine(ctx)
	}
	if err == nil {
		crash.At("init-served")
		if err := h.Dir.EndBeginning(); err != nil {
			return err
		}
		go h.Guarded(h.empty)
		return nil
	}
	host, readErr := h.Dir.ReadHost()
	if readErr != nil || host.Served {
		return fmt.Errorf("the switch is done, but the engine does not answer now: %w; 'dynast logs %s' shows why", errors.Join(err, readErr), member.EngineService)
	}
	if !h.programs.leads() {
		return errors.Join(err, errNotLeading) // the next leader goes on
	}
	// The engine must be dead before the record is read: it may begin to serve until then.
	life := h.Lifetime()
	if haltErr := h.halt(life); haltErr != nil {
		return fmt.Errorf("the engine does not serve (%w), and cannot be stopped: %w", err, haltErr)
	}
	if host, readErr = h.Dir.ReadHost(); readErr != nil || host.Served {
		return errors.Join(fmt.Errorf("the switch is done, but the engine has failed: %w", err), readErr, h.unhalt(life))
	}
	crash.At("init-undo")
	return errors.Join(fmt.Errorf("nothing was changed, and clients are served as before: the engine cannot serve: %w", err), h.goBack())
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
	if err := h.Dir.BeginHosts(); err != nil {
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
	err = restore.Member(ctx, restore.MemberOptions{Database: path, DataDir: h.Dir.Engine(), Name: host.Name, PeerURL: api.URL(host.Address),
		Token: host.Cluster, Logger: h.Logs.Zap("restore")})
	return &api.InitResponse{Name: host.Name, Address: host.Address, Revision: st.Revision(), Bytes: snap.Size}, err
}

// goBack serves clients from the members' store again.
func (h *hosts) goBack() error {
	if err := h.Dir.RemoveHost(); err != nil {
		// Whether the switch happened is decided by a file that cannot be removed.
		h.Fatal(core.ExitError, err)
		return err
	}
	h.Tell(events.HostsSwitch, "the switch to several hosts failed; clients are served as before")
	serveHTTP, err := h.clients.Serve()
	if err != nil {
		h.Fatal(core.ExitError, err)
		return err
	}
	go h.Guarded(serveHTTP)
	return h.Dir.DropHosts()
}

// awaitEngine waits until the engine serves and knows a leader. It gives up early if the engine keeps
// dying.
func (h *hosts) awaitEngine(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, engineStart)
	defer cancel()
	c := api.DialLocal(h.Dir)
	defer c.Close()
	for {
		var s api.Status
		err := c.Ask(ctx, api.PathStatus, nil, &s)
		if err == nil && s.LeaderID != "" {
			if host, err := h.Dir.ReadHost(); err == nil && host.Served {
				return nil
			}
		}
		if err != nil {
			now, err := h.programs.engineNow(ctx)
			if err == nil && now.restarts >= engineTries {
				return fmt.Errorf("it died %d times: %s (dynast logs %s)", now.restarts, now.reason, member.EngineService)
			}
		}
		select {
		case <-time.After(enginePause):
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-h.Ended():
			return errNotLeading
		}
	}
}

// halt stops the engine and keeps it from starting. It returns when no process of it is left.
func (h *hosts) halt(ctx context.Context) error {
	if err := h.recordHalt(); err != nil {
		return err
	}
	if err := h.programs.refresh(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, engineStart)
	defer cancel()
	for {
		now, err := h.programs.engineNow(ctx)
		if err == nil && !now.runs {
			return nil
		}
		select {
		case <-time.After(enginePause):
		case <-ctx.Done():
			return errors.Join(errors.New("the engine does not end"), ctx.Err(), err)
		}
	}
}

// recordHalt records that the engine must not run, and must not let another host in until it ends.
func (h *hosts) recordHalt() error {
	_, err := h.Dir.UpdateHost(func(host *datadir.Host) { host.Halted, host.HaltedAt = true, time.Now() })
	return err
}

// unhalt lets the engine run again. If this member does not lead any more, the next leader does it.
func (h *hosts) unhalt(ctx context.Context) error {
	if !h.programs.leads() {
		return errNotLeading
	}
	if err := h.Dir.DropBack(); err != nil {
		return err
	}
	if _, err := h.Dir.UpdateHost(func(host *datadir.Host) { host.Halted, host.HaltedAt = false, time.Time{} }); err != nil {
		return err
	}
	return h.programs.refresh(ctx)
}

// empty removes the keys from the members' store. The engine has them, and the members would keep them
// in memory for nothing.
func (h *hosts) empty() {
	h.emptying.Lock()
	defer h.emptying.Unlock()
	ctx := h.Lifetime()
	if !h.holdsKeys(ctx) {
		return
	}
	all, users := []byte{0}, h.replica.Current().Store.Auth()
	propose := func(r *pb.InternalRaftRequest) bool {
		r.Header = &pb.RequestHeader{Username: rootUser, AuthRevision: users.Revision()}
		res, err := h.replica.Proposals.Propose(ctx, r)
		if err == nil {
			err = res.Err
		}
		if err != nil {
			h.Log.Warn("the members keep a copy of the keys in memory until another member leads", "error", err)
		}
		return err == nil
	}
	if users.IsAuthEnabled() && !propose(&pb.InternalRaftRequest{AuthDisable: &pb.AuthDisableRequest{}}) {
		return
	}
	for _, l := range h.replica.Current().Store.Lessor().Leases() {
		if !propose(&pb.InternalRaftRequest{LeaseRevoke: &pb.LeaseRevokeRequest{ID: int64(l.ID)}}) {
			return
		}
	}
	if !propose(&pb.InternalRaftRequest{DeleteRange: &pb.DeleteRangeRequest{Key: all, RangeEnd: all}}) ||
		!propose(&pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: h.replica.Current().Store.Revision()}}) {
		return
	}
	if _, err := h.Request(ctx, func(ref chan core.Answer) core.Event { return core.DefragmentRequested{Ref: ref} }); err != nil {
		h.Log.Warn("the members' databases keep their size on disk", "error", err)
	}
}

// rootUser is the user who may do everything.
const rootUser = "root"

// holdsKeys reports whether the members' store has keys or leases.
func (h *hosts) holdsKeys(ctx context.Context) bool {
	st := h.replica.Current().Store
	res, err := st.KV().Range(ctx, []byte{0}, []byte{}, mvcc.RangeOptions{Limit: 1})
	return err != nil || len(res.KVs) > 0 || len(st.Lessor().Leases()) > 0
}
