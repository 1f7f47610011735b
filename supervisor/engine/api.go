package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/etcdhttp"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"
	"go.etcd.io/etcd/server/v3/storage"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/shared/member/pki"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/replica/store"
)

const (
	// headerTimeout bounds the headers of a request of another host, and idle is how long its
	// connection stays open without one.
	headerTimeout = 5 * time.Second
	idle          = 2 * time.Minute
	// maxBodyBytes bounds a message of package hosts.
	maxBodyBytes = 64 << 10
)

// peerServer serves the other hosts.
func (e *Engine) peerServer() *peerServer {
	mux := http.NewServeMux()
	mux.Handle("/", etcdhttp.NewPeerHandler(e.logs.Zap("peers"), e.server))
	e.handle(mux)
	quiet := e.log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug})
	return &peerServer{&http.Server{Handler: verified(mux), TLSConfig: e.authority.HostTLS(), ReadHeaderTimeout: headerTimeout, IdleTimeout: idle, ErrorLog: quiet}}
}

type peerServer struct{ *http.Server }

// Serve accepts connections until Close.
func (s *peerServer) Serve(l net.Listener) error {
	if err := s.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the other hosts: %w", err)
	}
	return nil
}

// verified refuses a client without a certificate of the cluster, except on the public paths.
func verified(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
			// A stranger must not keep a connection, neither by sending slowly (see answer) nor after the
			// answer.
			w.Header().Set("Connection", "close")
			if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(headerTimeout)); err != nil {
				http.Error(w, "the connection is gone", http.StatusInternalServerError)
				return
			}
			if !strings.HasPrefix(r.URL.Path, hosts.Public) {
				http.Error(w, "a certificate of this cluster is needed", http.StatusUnauthorized)
				return
			}
		}
		h.ServeHTTP(w, r)
	})
}

// serveLocal serves the leader of this host.
func (e *Engine) serveLocal() (*http.Server, error) {
	l, err := e.dir.ListenEngine()
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	e.handle(mux)
	mux.HandleFunc(hosts.PathList, answer(func(r *http.Request, _ struct{}) (*hosts.List, error) {
		return e.list(r.Context(), r.URL.Query().Has("tree")), nil
	}))
	e.handleOwnership(mux)
	mux.HandleFunc(hosts.PathRemove, answer(e.remove))
	mux.HandleFunc(hosts.PathToken, answer(e.makeToken))
	mux.HandleFunc(hosts.PathTokens, answer(func(*http.Request, struct{}) ([]hosts.Issued, error) { return e.tokens.List() }))
	mux.HandleFunc(hosts.PathRevoke, answer(func(_ *http.Request, n hosts.NameRequest) (struct{}, error) {
		return struct{}{}, e.tokens.Revoke(n.Name)
	}))
	s := &http.Server{Handler: mux, ReadHeaderTimeout: headerTimeout}
	go func() { _ = s.Serve(l) }()
	return s, nil
}

// handle adds what every host answers.
func (e *Engine) handle(mux *http.ServeMux) {
	mux.HandleFunc(hosts.PathJoin, answer(e.join))
	mux.HandleFunc(hosts.PathPromote, answer(e.promote))
	mux.HandleFunc(hosts.PathUpgrade, answer(e.upgrade))
	mux.HandleFunc(hosts.PathStop, answer(e.stopHost))
	mux.HandleFunc(hosts.PathMembers, answer(func(*http.Request, struct{}) (hosts.MembersResponse, error) {
		return hosts.MembersResponse{Members: e.members()}, nil
	}))
	mux.HandleFunc(hosts.PathAdmit, answer(func(r *http.Request, q hosts.AdmitRequest) (hosts.AdmitResponse, error) {
		return e.admit(r.Context(), q)
	}))
	mux.HandleFunc(hosts.PathRemoved, answer(e.wasRemoved))
	mux.HandleFunc(hosts.PathStatus, answer(func(r *http.Request, _ struct{}) (*hosts.Status, error) {
		return e.status(r.Context(), r.URL.Query().Has("tree")), nil
	}))
}

// answer turns a function into a handler. The function gets the body of a POST.
func answer[In, Out any](f func(*http.Request, In) (Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		if r.Method == http.MethodPost {
			raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
			if err == nil {
				err = json.Unmarshal(raw, &in)
			}
			// The deadline of a stranger is for the body only: later it would end the request.
			if err = errors.Join(err, http.NewResponseController(w).SetReadDeadline(time.Time{})); err != nil {
				refuse(w, http.StatusBadRequest, fmt.Errorf("the request is not understood: %w", err))
				return
			}
		}
		out, err := f(r, in)
		if err != nil {
			refuse(w, http.StatusConflict, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out)
	}
}

func refuse(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(hosts.Refusal{Error: err.Error()})
}

// status describes this host.
func (e *Engine) status(ctx context.Context, details bool) *hosts.Status {
	s := e.server
	committed, applied := s.CommittedIndex(), s.AppliedIndex()
	select {
	case <-s.ApplyWaitCommit():
		// Everything is applied. After a snapshot of another host, etcd's index says that only with the
		// next entry.
		applied = max(applied, committed)
	default:
	}
	out := &hosts.Status{Name: e.host.Name, Address: e.host.Address, ID: s.MemberID().String(), Cluster: e.host.Cluster, Version: e.version, PID: os.Getpid(),
		Started: e.started, Client: e.settings.Client.Listen, Revision: s.KV().Rev(), Term: s.Term(), Committed: committed, Applied: applied,
		DBBytes: s.Backend().Size(), UsedBytes: s.Backend().SizeInUse()}
	switch lead := s.Leader(); {
	case s.IsLearner():
		out.Role = hosts.RoleLearner
	case lead == 0:
		out.Role = hosts.RoleNoLeader
	case lead == s.MemberID():
		out.Role = hosts.RoleLeader
	default:
		out.Role = hosts.RoleFollower
	}
	if lead := s.Leader(); lead != 0 {
		out.LeaderID = lead.String()
	}
	if at := e.leaderSeen.Load(); at != 0 {
		out.LeaderSeen = time.Unix(0, at)
	}
	out.LogWritten = e.logWritten()
	e.describeStore(out)
	for _, a := range s.Alarms() {
		out.Alarms = append(out.Alarms, a.Alarm.String())
	}
	if details {
		if tree, err := e.tree(ctx); err == nil {
			out.Tree = tree
		}
	}
	return out
}

// describeStore adds what operators want to know about the store, except for what etcd's server knows.
func (e *Engine) describeStore(out *hosts.Status) {
	if out.QuotaBytes = e.settings.Quota; out.QuotaBytes == 0 {
		out.QuotaBytes = storage.DefaultQuotaBytes
	}
	if free, err := proc.FreeBytes(e.dir.Path()); err == nil {
		out.DiskFreeBytes = free
	}
	keys, watchers := store.Counts()
	out.Keys, out.Watchers = keys, int(watchers)
	if g := e.gate.Load(); g != nil {
		out.Connections, _ = g.Open()
	}
}

// tree asks the leader of this host for the tree of its processes.
func (e *Engine) tree(ctx context.Context) (raw []byte, err error) {
	err = e.askLeader(ctx, askTimeout/2, func(ctx context.Context, a wire.AdminClient) error {
		resp, err := a.Tree(ctx, &wire.TreeRequest{})
		raw = resp.GetJson()
		return err
	})
	return raw, err
}

// askLeader asks the leader of this host.
func (e *Engine) askLeader(ctx context.Context, timeout time.Duration, f func(context.Context, wire.AdminClient) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c, err := grpc.NewClient("passthrough:///leader", grpc.WithContextDialer(e.dir.DialAdmin), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer c.Close()
	return f(ctx, wire.NewAdminClient(c))
}

// elsewhere passes a request on if it is about another host.
func (e *Engine) elsewhere(r *http.Request, path, name string, in, out any) (bool, error) {
	if name == e.host.Name {
		return false, nil
	}
	target, err := find(e.list(r.Context(), false), name)
	switch {
	case err != nil:
		return true, err
	case target.ID == e.server.MemberID().String():
		return false, nil
	case !target.Reachable:
		return true, fmt.Errorf("%s does not answer: %s", target.Name, target.Error)
	}
	return true, e.others.client(target.Address).Ask(r.Context(), path, in, out)
}

// upgradeTimeout bounds the upgrade of a host, as that of a single host.
const upgradeTimeout = 20 * time.Minute

// upgrade replaces the processes of a host by those of another build. The engine comes last: the new
// leader restarts it.
func (e *Engine) upgrade(r *http.Request, q hosts.UpgradeRequest) (*hosts.UpgradeResponse, error) {
	var out hosts.UpgradeResponse
	if other, err := e.elsewhere(r, hosts.PathUpgrade, q.Name, q, &out); other {
		return &out, err
	}
	err := e.askLeader(r.Context(), upgradeTimeout, func(ctx context.Context, a wire.AdminClient) error {
		resp, err := a.Upgrade(ctx, &wire.UpgradeRequest{Binary: q.Binary})
		out = hosts.UpgradeResponse{Before: resp.GetBefore(), After: resp.GetAfter()}
		return err
	})
	if err != nil {
		return nil, errors.New(status.Convert(err).Message())
	}
	return &out, nil
}

// stopHost stops all processes of a host. They start again with 'dynast up' there.
func (e *Engine) stopHost(r *http.Request, q hosts.NameRequest) (struct{}, error) {
	if other, err := e.elsewhere(r, hosts.PathStop, q.Name, q, nil); other {
		return struct{}{}, err
	}
	err := e.askLeader(r.Context(), requestTimeout, func(ctx context.Context, a wire.AdminClient) error {
		_, err := a.Stop(ctx, &wire.StopRequest{})
		return err
	})
	if err != nil {
		return struct{}{}, errors.New(status.Convert(err).Message())
	}
	return struct{}{}, nil
}

// requestTimeout bounds a change of the membership.
const requestTimeout = 10 * time.Second

// join lets a host in that has a token: it becomes a learner, and gets what its engine needs. A repeated
// request of the same host gets the same answer, because the first answer may have been lost.
func (e *Engine) join(r *http.Request, q hosts.JoinRequest) (*hosts.JoinResponse, error) {
	token, err := hosts.ParseToken(q.Token)
	if err != nil {
		return nil, err
	}
	if err := config.CheckHostName(q.Name); err != nil {
		return nil, fmt.Errorf("the name %q: %w", q.Name, err)
	}
	if err := config.CheckHostAddress(q.Address); err != nil {
		return nil, fmt.Errorf("the address %q: %w", q.Address, err)
	}
	if err := e.checkServed(); err != nil {
		return nil, err
	}
	user := q.Name + "@" + q.Address
	if err := e.tokens.Use(token, user); err != nil {
		e.log.Warn("refused a host that wants to join", "name", q.Name, "address", q.Address, "from", r.RemoteAddr, "reason", err)
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), hosts.AdmitTimeout)
	defer cancel()
	members, err := e.letAdmit(ctx, q.AdmitRequest)
	if err != nil {
		return nil, errors.Join(err, e.tokens.Release(token, user))
	}
	cert, key, err := pki.Export(e.dir.HostsPKI())
	if err != nil {
		return nil, err
	}
	e.log.Info("admitted a host", "name", q.Name, "address", q.Address)
	return &hosts.JoinResponse{Cluster: e.host.Cluster, Members: members, Certificate: cert, Key: key}, nil
}

// checkServed refuses what would not survive if this host went back to the store of a single host, because
// the engine cannot serve.
func (e *Engine) checkServed() error {
	if !e.served.Load() {
		return errors.New("this host is still changing to a store of several hosts; try again")
	}
	return nil
}

// members returns the addresses of all hosts, by name.
func (e *Engine) members() map[string]string {
	out := map[string]string{}
	for _, m := range e.server.Cluster().Members() {
		out[name(m)] = address(m)
	}
	return out
}

// letAdmit lets the leading host admit a host, and returns the addresses of all hosts. It asks again if
// there is no leading host at the moment, or if it changes meanwhile.
func (e *Engine) letAdmit(ctx context.Context, q hosts.AdmitRequest) (map[string]string, error) {
	for {
		var resp hosts.AdmitResponse
		var err error
		lead := e.server.Leader()
		switch m := e.server.Cluster().Member(lead); {
		case lead == e.server.MemberID():
			resp, err = e.admit(ctx, q)
		case m != nil:
			err = e.others.client(address(m)).Ask(ctx, hosts.PathAdmit, q, &resp)
		default:
			resp.NotLeading = true
		}
		switch {
		case err == nil && !resp.NotLeading:
			return resp.Members, nil
		case err != nil && !errors.Is(err, hosts.ErrUnreachable):
			return nil, err
		}
		select {
		case <-time.After(unhealthyPause):
		case <-ctx.Done():
			return nil, e.changeError("the host cannot be admitted", errors.Join(ctx.Err(), err))
		}
	}
}

// admit makes a host a learner. Only the leading host admits, and one host at a time, because names and
// addresses must differ, and etcd compares neither before it adds a member. A repeated request gets the
// same answer.
func (e *Engine) admit(ctx context.Context, q hosts.AdmitRequest) (hosts.AdmitResponse, error) {
	e.admitting.Lock()
	defer e.admitting.Unlock()
	// Everything that an earlier leader has admitted is known after this.
	if err := e.server.LinearizableReadNotify(ctx); err != nil {
		return hosts.AdmitResponse{}, e.changeError("the host cannot be admitted", err)
	}
	if e.server.Leader() != e.server.MemberID() {
		return hosts.AdmitResponse{NotLeading: true}, nil
	}
	known := false
	for _, m := range e.server.Cluster().Members() {
		switch {
		case m.Name == q.Name && address(m) == q.Address && pending(m):
			known = true
		case m.Name == q.Name || address(m) == q.Address:
			return hosts.AdmitResponse{}, fmt.Errorf("the host %s at %s is a member already. If its data is lost, or if it never started, remove it first ('dynast hosts remove %s' on another host), and join again; "+
				"if this is another host, choose another name and address", name(m), address(m), name(m))
		}
	}
	if !known {
		urls, err := types.NewURLs([]string{hosts.URL(q.Address)})
		if err != nil {
			return hosts.AdmitResponse{}, err
		}
		now := time.Now()
		err = change(ctx, func(ctx context.Context) error {
			_, err := e.server.AddMember(ctx, *membership.NewMemberAsLearner(q.Name, urls, e.host.Cluster, &now))
			return err
		}, membership.ErrIDExists)
		if err != nil {
			return hosts.AdmitResponse{}, e.changeError("the host cannot be admitted", err)
		}
	}
	// A host that goes back to a single host's store records that, and looks at the list of hosts afterwards.
	if host, err := e.dir.ReadHost(); err != nil || host.Halted {
		return hosts.AdmitResponse{}, errors.Join(errors.New("this host is going back to a single host; join another one"), err)
	}
	return hosts.AdmitResponse{Members: e.members()}, nil
}

// wasRemoved says whether a host was removed. One that was down meanwhile asks for it.
func (e *Engine) wasRemoved(_ *http.Request, q hosts.NameRequest) (hosts.RemovedResponse, error) {
	id, err := types.IDFromString(q.Name)
	if err != nil {
		return hosts.RemovedResponse{}, fmt.Errorf("the ID %q: %w", q.Name, err)
	}
	return hosts.RemovedResponse{Removed: e.server.IsIDRemoved(uint64(id))}, nil
}

// change changes the membership. It repeats a change that etcd refuses because a host has been connected
// for less than five seconds, and one that gets no answer. Raft drops a change without a word while it
// has no leader, or while another change is under way. already is the error of a change that an earlier
// attempt has made.
func change(ctx context.Context, attempt func(context.Context) error, already error) error {
	for lost := false; ; {
		try, cancel := context.WithTimeout(ctx, changeTry)
		err := attempt(try)
		late := err != nil && try.Err() != nil
		cancel()
		switch {
		case lost && errors.Is(err, already):
			return nil
		case late:
			lost = true
		case !errors.Is(err, etcderrors.ErrUnhealthy):
			return err
		}
		select {
		case <-time.After(unhealthyPause):
		case <-ctx.Done():
			return err
		}
	}
}

const (
	// changeTry bounds an attempt to change the membership, and unhealthyPause separates two.
	changeTry      = 2 * time.Second
	unhealthyPause = 100 * time.Millisecond
)

// changeError explains why the membership could not change. etcd only says that time ran out.
func (e *Engine) changeError(what string, err error) error {
	l := e.list(context.Background(), false)
	if l.Voting < l.Quorum {
		return fmt.Errorf("%s: a change of the hosts needs a majority, and only %d of the %d needed voting hosts answer: start the others, or see 'dynast hosts recover'", what, l.Voting, l.Quorum)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// remove removes a host. It refuses if the rest would have no majority that answers.
func (e *Engine) remove(r *http.Request, q hosts.NameRequest) (*hosts.Host, error) {
	l := e.list(r.Context(), false)
	target, err := find(l, q.Name)
	if err != nil {
		return nil, err
	}
	votes := target.Votes()
	if votes && !q.Force {
		voters, answering := -1, l.Voting
		for _, h := range l.Hosts {
			if h.Votes() {
				voters++
			}
		}
		if target.Reachable {
			answering--
		}
		if voters == 0 {
			return nil, fmt.Errorf("%s is the last host; 'dynast hosts leave --last' goes back to a single host", target.Name)
		}
		if quorum := voters/2 + 1; answering < quorum {
			return nil, fmt.Errorf("without %s, %d of %d voting hosts would answer, and %d are needed, so nothing could be written: start the others first, or add a host", target.Name, answering, voters, quorum)
		}
	}
	id, err := types.IDFromString(target.ID)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	if id == e.server.MemberID() && e.server.Leader() == id {
		_ = e.server.TryTransferLeadershipOnShutdown() // the others then have a leader at once
	}
	if id == e.server.MemberID() {
		e.removed.Store(true)
	}
	err = change(ctx, func(ctx context.Context) error {
		_, err := e.server.RemoveMember(ctx, uint64(id))
		return err
	}, membership.ErrIDRemoved)
	if err != nil {
		e.removed.Store(false)
		return nil, e.changeError(target.Name+" cannot be removed", err)
	}
	e.log.Info("removed a host", "name", target.Name, "address", target.Address)
	return &target, nil
}

// errLeadsElsewhere means that a third host has become the leader during a hand-over.
var errLeadsElsewhere = errors.New("another host leads now; see 'dynast hosts'")

// promoteTries is how often a hand-over begins again because a third host has become the leader.
const promoteTries = 3

// promote makes a host the leader of the Raft group.
func (e *Engine) promote(r *http.Request, q hosts.NameRequest) (target *hosts.Host, err error) {
	for range promoteTries {
		if target, err = e.promoteOnce(r, q); !errors.Is(err, errLeadsElsewhere) {
			break
		}
	}
	return target, err
}

func (e *Engine) promoteOnce(r *http.Request, q hosts.NameRequest) (*hosts.Host, error) {
	l := e.list(r.Context(), false)
	target, err := find(l, q.Name)
	if err != nil {
		return nil, err
	}
	switch {
	case target.Role == hosts.RoleLeader:
		return &target, nil
	case target.Role == hosts.RoleLearner || target.Role == hosts.RoleJoining:
		return nil, fmt.Errorf("%s does not vote yet; it does when it has caught up", target.Name)
	case !target.Reachable:
		return nil, fmt.Errorf("%s does not answer: %s", target.Name, target.Error)
	case e.server.Leader() == 0:
		return nil, errors.New("there is no leader that could hand over; see 'dynast hosts'")
	}
	if e.server.Leader() != e.server.MemberID() { // only the leading host can hand over
		for _, h := range l.Hosts {
			if h.Role == hosts.RoleLeader {
				return &target, e.others.client(h.Address).Ask(r.Context(), hosts.PathPromote, q, nil)
			}
		}
		return nil, errors.New("the leading host is not known; see 'dynast hosts'")
	}
	id, err := types.IDFromString(target.ID)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	return &target, e.moveLeader(ctx, id)
}

// moveLeader hands over to a host. It tries again if that host, which may just have come back, did not take
// over within an election timeout.
func (e *Engine) moveLeader(ctx context.Context, to types.ID) error {
	for {
		// Raft gives up after an election timeout, but etcd waits until the context ends.
		try, cancel := context.WithTimeout(ctx, e.settings.Election+2*e.settings.Heartbeat)
		err := e.server.MoveLeader(try, uint64(e.server.MemberID()), uint64(to))
		cancel()
		switch lead := e.server.Leader(); {
		case err == nil || lead == to:
			return nil
		case lead != 0 && lead != e.server.MemberID():
			return fmt.Errorf("%w: %w", errLeadsElsewhere, err)
		case !errors.Is(err, etcderrors.ErrTimeoutLeaderTransfer) || ctx.Err() != nil:
			return err
		}
	}
}

// find returns the host with a name or an address.
func find(l *hosts.List, name string) (hosts.Host, error) {
	var names []string
	for _, h := range l.Hosts {
		if h.Name == name || h.Address == name || h.ID == name {
			return h, nil
		}
		names = append(names, h.Name)
	}
	return hosts.Host{}, fmt.Errorf("there is no host %q; the hosts are %s", name, strings.Join(names, ", "))
}

const (
	// shortestLife and longestLife bound the life of a token.
	shortestLife = time.Minute
	longestLife  = 30 * 24 * time.Hour
)

func (e *Engine) makeToken(_ *http.Request, q hosts.TokenRequest) (*hosts.TokenResponse, error) {
	if err := e.checkServed(); err != nil {
		return nil, err
	}
	if q.Life < shortestLife || q.Life > longestLife {
		return nil, fmt.Errorf("a token is valid for %s to %s, and not for %s", shortestLife, longestLife, q.Life)
	}
	token, issued, err := e.tokens.Make(e.authority.Raw(), q.Life, q.Once)
	if err != nil {
		return nil, err
	}
	return &hosts.TokenResponse{Token: token.String(), Address: e.host.Address, Expires: issued.Expires}, nil
}

// promoteLearners makes learners vote once they have caught up, if this engine leads.
func (e *Engine) promoteLearners(ctx context.Context) {
	every(ctx, askEvery/2, func() {
		if e.server.Leader() != e.server.MemberID() {
			return
		}
		for _, m := range e.server.Cluster().Members() {
			if !m.IsLearner || pending(m) {
				continue
			}
			try, cancel := context.WithTimeout(ctx, changeTry)
			if _, err := e.server.PromoteMember(try, uint64(m.ID)); err == nil {
				e.log.Info("the host has caught up and votes from now on", "name", m.Name, "address", address(m))
			}
			cancel()
		}
	})
}

func hostOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return raw
	}
	return u.Host
}
