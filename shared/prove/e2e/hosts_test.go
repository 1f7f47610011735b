package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/shared/member/pki"
	"github.com/dynast-io/dynast/shared/observe/tree"
	"github.com/dynast-io/dynast/shared/prove/netns"
	"github.com/dynast-io/dynast/shared/prove/testkit"
)

// dialAll returns a stock client with the endpoints of several hosts.
func dialAll(t *testing.T, all ...*cluster) *clientv3.Client {
	t.Helper()
	var endpoints []string
	for _, c := range all {
		endpoints = append(endpoints, c.client)
	}
	cl, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: patience, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cl.Close() })
	return cl
}

// engine returns the only engine of a host.
func (c *cluster) engine() proc.Identity {
	c.t.Helper()
	var one proc.Identity
	eventually(c.t, "there is one engine", func() bool {
		all := c.engines()
		if len(all) == 1 {
			one = all[0]
		}
		return len(all) == 1
	})
	return one
}

// list returns the hosts as this one sees them.
func (c *cluster) list() *hosts.List {
	c.t.Helper()
	var l hosts.List
	c.mustHosts(&l)
	return &l
}

// votes waits until as many hosts vote, answer and have caught up, as this one sees it.
func (c *cluster) votes(want int) *hosts.List {
	c.t.Helper()
	var l hosts.List
	eventually(c.t, fmt.Sprintf("%d hosts vote", want), func() bool {
		c.everyone()
		l = hosts.List{}
		if code, _ := c.hosts(&l); code != 0 || len(l.Hosts) != want || !l.Writable {
			return false
		}
		return !slices.ContainsFunc(l.Hosts, func(h hosts.Host) bool {
			return !h.Reachable || h.Role != hosts.RoleLeader && h.Role != hosts.RoleFollower || h.Lag > 100
		})
	})
	return &l
}

// joinLater starts a host that joins another one, and does not wait.
func joinLater(t *testing.T, at, name, token string) *cluster {
	t.Helper()
	c := newCluster(t)
	c.up("--join", at, "--token-file", token, "--hosts-name", name, "--hosts-address", c.address())
	return c
}

// hostLoad puts one key after the other through a client, and records what happens.
type hostLoad struct {
	mu      sync.Mutex
	answers []time.Time
	failed  []error
	stop    context.CancelFunc
	done    chan struct{}
}

// loads begins to put. A put is not repeated.
func loads(t *testing.T, cl *clientv3.Client, key string) *hostLoad {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	l := &hostLoad{stop: stop, done: make(chan struct{})}
	go func() {
		defer close(l.done)
		for i := 0; ctx.Err() == nil; i++ {
			try, cancel := context.WithTimeout(ctx, 5*time.Second)
			_, err := cl.Put(try, key, fmt.Sprint(i))
			cancel()
			l.mu.Lock()
			switch {
			case err == nil:
				l.answers = append(l.answers, time.Now())
			case ctx.Err() == nil:
				l.failed = append(l.failed, err)
			}
			l.mu.Unlock()
		}
	}()
	t.Cleanup(func() { l.end() })
	l.more(t, 20)
	return l
}

// more waits for more answers.
func (l *hostLoad) more(t *testing.T, n int) {
	t.Helper()
	count := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.answers)
	}
	before := count()
	eventually(t, "more answers", func() bool { return count() >= before+n })
}

// end stops the load, and returns the longest time between two answers, and the errors.
func (l *hostLoad) end() (gap time.Duration, failed []error) {
	l.stop()
	<-l.done
	for i := range l.answers[min(1, len(l.answers)):] {
		gap = max(gap, l.answers[i+1].Sub(l.answers[i]))
	}
	return gap, l.failed
}

// TestHosts goes from one host with data to three, and breaks processes of them.
func TestHosts(t *testing.T) {
	one := start(t)
	before := one.dial()
	for i := range 200 {
		put(t, before, fmt.Sprintf("old/%03d", i), strings.Repeat("x", 1000))
	}
	at := one.address()
	one.mustHosts(nil, "init", "--address", at, "--name", "one")
	token := one.token()
	two, three := joinLater(t, at, "two", token), joinLater(t, at, "three", token)
	all := []*cluster{one, two, three}
	one.votes(3)
	for _, c := range all {
		l := c.votes(3)
		var names []string
		leaders := 0
		for _, h := range l.Hosts {
			names = append(names, h.Name)
			if h.Role == hosts.RoleLeader {
				leaders++
			}
		}
		slices.Sort(names)
		if !slices.Equal(names, []string{"one", "three", "two"}) || leaders != 1 || l.Quorum != 2 || l.Voting != 3 {
			t.Errorf("the list of hosts: %+v", l)
		}
	}
	whole := dialAll(t, all...)
	for i, c := range all {
		put(t, c.dial(), fmt.Sprintf("new/%d", i), "x")
		for j, other := range all {
			if got := must(other.dial().Get(testContext(t), fmt.Sprintf("new/%d", i)))(t); got.Count != 1 {
				t.Errorf("host %d does not have what host %d wrote", j, i)
			}
			if got := must(other.dial().Get(testContext(t), "old/", clientv3.WithPrefix(), clientv3.WithCountOnly()))(t); got.Count != 200 {
				t.Errorf("host %d has %d of the 200 old keys", j, got.Count)
			}
		}
	}

	for i, c := range all {
		c.wait(fmt.Sprintf("the facts of the store of host %d", i), func(t *tree.Tree) bool {
			s := t.Store
			return s != nil && s.Keys == 203 && s.Revision > 203 && s.Connections > 0 && s.QuotaBytes == 2<<30 && s.UsedBytes > 200_000 && s.DiskFreeBytes > 0
		})
	}

	t.Run("engine killed", func(t *testing.T) {
		for _, c := range all {
			was := c.engine()
			l := loads(t, c.dial(), "load")
			signalSame(was, syscall.SIGKILL)
			eventually(t, "there is another engine", func() bool { e := c.engines(); return len(e) == 1 && e[0] != was })
			l.more(t, 50)
			gap, failed := l.end()
			t.Logf("the client with only that endpoint waited for %s, and %d requests failed", gap, len(failed))
			if len(failed) > 1 {
				t.Errorf("one request was under way when the engine died, but %d failed: %v", len(failed), failed)
			}
			one.votes(3)
		}
	})

	t.Run("leader of a host killed", func(t *testing.T) {
		for _, c := range all {
			was, tr := c.engine(), c.full()
			one.votes(3)
			alone, together := loads(t, c.dial(), "alone"), loads(t, whole, "together")
			c.signal(leaderOf(tr), syscall.SIGKILL)
			c.wait("another leader", func(now *tree.Tree) bool { return leaderOf(now).PID != 0 && leaderOf(now).PID != leaderOf(tr).PID })
			alone.more(t, 50)
			together.more(t, 50)
			for name, l := range map[string]*hostLoad{"that endpoint": alone, "all endpoints": together} {
				gap, failed := l.end()
				t.Logf("longest gap with %s: %s", name, gap)
				if len(failed) > 0 {
					t.Errorf("requests failed with %s: %v", name, failed)
				}
			}
			if now := c.engine(); now != was {
				t.Errorf("the engine was restarted: it was %+v and is %+v", was, now)
			}
			c.full()
		}
	})

	t.Run("transaction that crashes etcd", func(t *testing.T) {
		_, err := one.dial().Txn(testContext(t)).Then(clientv3.OpDelete("new/0", clientv3.WithFromKey()), clientv3.OpPut("new/0", "", clientv3.WithIgnoreValue())).Commit()
		if !errors.Is(err, rpctypes.ErrDuplicateKey) {
			t.Errorf("it is answered with %v", err)
		}
	})

	t.Run("metrics", func(t *testing.T) { serves(t, one) })

	t.Run("engine stopped", func(t *testing.T) {
		was := two.engine()
		signalSame(was, syscall.SIGSTOP)
		eventually(t, "the watchdog has replaced the engine", func() bool { e := two.engines(); return len(e) == 1 && e[0] != was })
		put(t, two.dial(), "after", "x")
		one.votes(3)
	})

	t.Run("one host stopped and started", func(t *testing.T) {
		l := loads(t, whole, "load")
		three.order("stop", "--config", three.config)
		eventually(t, "no process is left", func() bool { return len(three.everyone()) == 0 })
		l.more(t, 50)
		three.up()
		one.votes(3)
		l.more(t, 50)
		gap, failed := l.end()
		t.Logf("longest gap with all endpoints: %s, %d requests failed", gap, len(failed))
	})

	t.Run("all hosts killed", func(t *testing.T) {
		put(t, whole, "last", "x")
		var wg sync.WaitGroup
		for _, c := range all {
			wg.Go(c.killHost)
		}
		wg.Wait()
		ready := filepath.Join(t.TempDir(), "ready")
		three.up("--ready-file", ready)
		eventually(t, "a host without a majority is ready", func() bool { _, err := os.Stat(ready); return err == nil })
		for path, want := range map[string]int{"/livez": 200, "/health?serializable=true": 200, "/health": 503, "/readyz/serializable_read": 200, "/readyz/linearizable_read": 503} {
			if code, text, err := ask(testContext(t), http.DefaultClient, "GET", "http://"+three.client+path, ""); err != nil || code != want {
				t.Errorf("%s without a majority: status %d %q, %v; want %d", path, code, text, err, want)
			}
		}
		if v := total(three.scrape()["etcd_server_has_leader"]); v != 0 {
			t.Errorf("etcd_server_has_leader without a majority is %g", v)
		}
		two.up()
		one.up()
		one.votes(3)
		for i, c := range all {
			if got := must(c.dial().Get(testContext(t), "last"))(t); got.Count != 1 {
				t.Errorf("host %d lacks the last write", i)
			}
		}
	})

	t.Run("strangers", func(t *testing.T) { refusesStrangers(t, two) })
}

// serves compares the metrics of a host with docs/metrics.md. Some of etcd's exist only after what they
// count has happened.
func serves(t *testing.T, c *cluster) {
	got := c.scrape()
	single, several := testkit.DocumentedMetrics(page(t, "docs/metrics.md")), testkit.DocumentedHostMetrics(page(t, "docs/metrics.md"))
	for name := range got {
		known := strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") || strings.HasPrefix(name, "etcd_debugging_")
		if !known && single[name] == "" && several[name] == "" {
			t.Errorf("%s is served, but docs/metrics.md does not explain it", name)
		}
	}
	for _, name := range []string{"dynast_heir", "dynast_service_up", "etcd_server_has_leader"} {
		if v := total(got[name]); v != 1 {
			t.Errorf("%s is %g, want 1", name, v)
		}
	}
	if v := total(got["dynast_members"]); v != 3 {
		t.Errorf("dynast_members says %g processes, want 3", v)
	}
	if got["dynast_commit_index"] != nil {
		t.Error("the metrics describe the store of the members, which is empty")
	}
}

// refusesStrangers asks the port for hosts without a certificate, and with one of another cluster.
func refusesStrangers(t *testing.T, c *cluster) {
	dir := must(datadir.OpenForReading(c.dir))(t)
	address := must(dir.ReadHost())(t).Address
	ask := func(cfg *tls.Config, path string) (int, error) {
		h := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true}, Timeout: patience}
		resp, err := h.Post("https://"+address+path, "application/octet-stream", strings.NewReader("{}"))
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, err
	}
	other := must(pki.LoadOrCreate(t.TempDir(), "another"))(t)
	stranger := other.HostClientTLS().Clone()
	stranger.InsecureSkipVerify, stranger.VerifyConnection, stranger.VerifyPeerCertificate = true, nil, nil
	for _, path := range []string{"/raft", "/raft/probing", "/raft/snapshot", "/members", "/version", hosts.PathStatus, hosts.PathMembers, hosts.PathRemove, hosts.PathStop, hosts.PathUpgrade, hosts.PathToken} {
		if code, err := ask(&tls.Config{InsecureSkipVerify: true}, path); err != nil || code != http.StatusUnauthorized {
			t.Errorf("%s without a certificate: status %d, error %v", path, code, err)
		}
		if code, err := ask(stranger, path); err == nil {
			t.Errorf("%s with a certificate of another cluster: status %d", path, code)
		}
	}
	if resp, err := http.Post("http://"+address+"/raft", "application/octet-stream", strings.NewReader("{}")); err == nil {
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			t.Errorf("/raft without TLS: %s", resp.Status)
		}
	}
	// What the port for joins says without a valid token tells nothing.
	if code, err := ask(&tls.Config{InsecureSkipVerify: true}, hosts.PathJoin); err != nil || code == http.StatusOK {
		t.Errorf("a join without a token: status %d, error %v", code, err)
	}
}

// TestHostsReplaced removes a dead host, replaces it, and refuses one that comes back with an empty disk.
func TestHostsReplaced(t *testing.T) {
	if testing.Short() {
		t.Skip("-short skips this test, because it takes long")
	}
	one, at := first(t)
	token := one.token()
	two := joins(t, one, at, "two", token)
	three := joins(t, one, at, "three", token)
	cl := dialAll(t, one, two, three)
	put(t, cl, "key", "x")
	address := must(must(datadir.OpenForReading(three.dir))(t).ReadHost())(t).Address

	// An empty disk under the old name: the same configuration, but no data.
	three.killHost()
	if err := os.RemoveAll(three.dir); err != nil {
		t.Fatal(err)
	}
	join := func() (int, string) {
		return three.run("up", "--config", three.config, "--join", at, "--token-file", token, "--hosts-name", "three", "--hosts-address", address)
	}
	if code, out := join(); code == 0 || !strings.Contains(out, "three") || !strings.Contains(out, "is a member already") || !strings.Contains(out, "dynast hosts remove three") {
		t.Errorf("a host that comes back with an empty disk: exit code %d\n%s", code, out)
	}
	if n := len(three.engines()); n != 0 {
		t.Errorf("the refused host has %d engines", n)
	}
	// Without the flags for the join, it must not become something else under the cluster's address.
	eventually(t, "the dead host is removed", func() bool {
		code, out := one.run("hosts", "remove", "three", "--config", one.config)
		return code == 0 && strings.Contains(out, "removed three")
	})
	if l := one.votes(2); l.Quorum != 2 {
		t.Errorf("after the removal: %+v", l)
	}
	three.up("--join", at, "--token-file", token, "--hosts-name", "three", "--hosts-address", address)
	one.votes(3)
	three.engines()
	if got := must(three.dial().Get(testContext(t), "key"))(t); got.Count != 1 {
		t.Error("the replaced host lacks the data")
	}

	// A host that was removed while it was down learns it from the others when it is back.
	three.killHost()
	eventually(t, "the host that is down is removed", func() bool {
		code, out := one.run("hosts", "remove", "three", "--config", one.config)
		return code == 0 && strings.Contains(out, "removed three")
	})
	three.up()
	eventually(t, "the host that was removed while it was down says so", func() bool {
		code, out := three.hosts(nil)
		return code != 0 && strings.Contains(out, "removed")
	})
	eventually(t, "it has no engine", func() bool { return len(three.engines()) == 0 })

	// A host that is removed while it is alive says so, and serves nobody.
	if code, out := one.run("hosts", "remove", "two", "--config", one.config); code != 0 {
		t.Fatalf("remove: %d %s", code, out)
	}
	eventually(t, "the removed host says so", func() bool {
		code, out := two.hosts(nil)
		return code != 0 && strings.Contains(out, "removed")
	})
	eventually(t, "no engine is left", func() bool { return len(two.engines()) == 0 })
	put(t, dialAll(t, one), "key", "y")
}

// TestHostsToken presents tokens that are no longer or not yet good, and looks for the secret where it must
// not be.
func TestHostsToken(t *testing.T) {
	if testing.Short() {
		t.Skip("-short skips this test, because it takes long")
	}
	one, at := first(t)
	try := func(name, file string) (int, string) {
		c := newCluster(t)
		return c.run("up", "--config", c.config, "--join", at, "--token-file", file, "--hosts-name", name, "--hosts-address", c.address())
	}
	refused := func(name, file string) {
		t.Helper()
		if code, out := try(name, file); code == 0 || !strings.Contains(out, "the token is not valid here") || !strings.Contains(out, "dynast hosts token") {
			t.Errorf("%s: exit code %d\n%s", name, code, out)
		}
	}
	read := func(file string) string { return strings.TrimSpace(string(must(os.ReadFile(file))(t))) }
	file := func(text string, mode fs.FileMode) string {
		path := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := one.token()

	parts := strings.Split(read(good), ".")
	wrong := slices.Clone(parts)
	wrong[3] = strings.Repeat("A", len(parts[3]))
	refused("wrong", file(strings.Join(wrong, "."), 0o600))

	other := slices.Clone(parts)
	other[1] = strings.Repeat("ab", len(parts[1])/2)
	if code, out := try("other", file(strings.Join(other, "."), 0o600)); code == 0 || !strings.Contains(out, "belongs to another cluster than the token") || !strings.Contains(out, "nothing was sent") {
		t.Errorf("a token of another cluster: %d\n%s", code, out)
	}
	if code, out := try("open", file(read(good), 0o644)); code == 0 || !strings.Contains(out, "others can read it") {
		t.Errorf("a token file that others can read: %d\n%s", code, out)
	}
	if code, out := try("none", file("hello", 0o600)); code == 0 || !strings.Contains(out, "this is not a token") {
		t.Errorf("no token: %d\n%s", code, out)
	}

	revoked := one.token()
	id := strings.Split(read(revoked), ".")[2]
	if code, out := one.run("hosts", "token", "--revoke", id, "--config", one.config); code != 0 {
		t.Fatalf("revoke: %d %s", code, out)
	}
	refused("revoked", revoked)

	expired := one.token()
	expire(t, one, strings.Split(read(expired), ".")[2])
	refused("expired", expired)

	// A host that is refused does not use the token up.
	once := file(one.order("hosts", "token", "--once", "--config", one.config), 0o600)
	if code, out := try(one.list().Self, once); code == 0 || !strings.Contains(out, "is a member already") {
		t.Errorf("a second host of one name: exit code %d\n%s", code, out)
	}
	two := joins(t, one, at, "two", once)
	refused("used", once)
	if l := one.votes(2); len(l.Hosts) != 2 {
		t.Errorf("a refused host is listed: %+v", l)
	}

	var listed []map[string]any
	raw := one.order("hosts", "token", "--list", "--json", "--config", one.config)
	if err := json.Unmarshal([]byte(raw), &listed); err != nil || len(listed) < 2 {
		t.Errorf("the list of tokens: %v %s", err, raw)
	}
	two.list()
	for _, f := range []string{good, revoked, expired, once} {
		secret := strings.Split(read(f), ".")[3]
		for where, text := range map[string]string{
			"the list": raw, "the hosts": one.order("hosts", "--json", "--config", one.config), "the tree": one.order("tree", "--json", "--config", one.config),
			"the log of one": one.logText(), "the log of two": two.logText(), "arguments and environments": commandLines(t),
		} {
			if strings.Contains(text, secret) {
				t.Errorf("%s has the secret of a token", where)
			}
		}
		for _, c := range []*cluster{one, two} {
			inFiles(t, c.dir, secret)
		}
	}

	// Of two hosts that join at once under one name, through different hosts, one is refused.
	twoAt := must(must(datadir.OpenForReading(two.dir))(t).ReadHost())(t).Address
	same := []*cluster{joinLater(t, at, "same", good), joinLater(t, twoAt, "same", file(two.order("hosts", "token", "--config", two.config), 0o600))}
	refusals := func() (n int) {
		for _, c := range same {
			if strings.Contains(c.logText(), "is a member already") {
				n++
			}
		}
		return n
	}
	eventually(t, "one of them is refused", func() bool { return refusals() == 1 })
	one.votes(3)
	joins(t, one, at, "later", good)
	if n := refusals(); n != 1 {
		t.Errorf("%d of two hosts with one name were refused", n)
	}
}

// expire makes a token of a host end now.
func expire(t *testing.T, c *cluster, id string) {
	t.Helper()
	path := filepath.Join(must(datadir.OpenForReading(c.dir))(t).Hosts(), "tokens.json")
	var all []hosts.Issued
	if err := json.Unmarshal(must(os.ReadFile(path))(t), &all); err != nil {
		t.Fatal(err)
	}
	found := false
	for i := range all {
		if all[i].ID == id {
			all[i].Expires, found = time.Now().Add(-time.Second), true
		}
	}
	if !found {
		t.Fatalf("%s has no token %s", path, id)
	}
	if err := os.WriteFile(path, must(json.Marshal(all))(t), 0o600); err != nil {
		t.Fatal(err)
	}
}

// commandLines returns the arguments and environments of all processes.
func commandLines(t *testing.T) string {
	t.Helper()
	paths := must(filepath.Glob("/proc/[0-9]*"))(t)
	var b bytes.Buffer
	for _, p := range paths {
		for _, name := range []string{"cmdline", "environ"} {
			raw, err := os.ReadFile(filepath.Join(p, name))
			if err == nil { // otherwise it has ended, or belongs to another user
				b.Write(raw)
			}
		}
	}
	return b.String()
}

// inFiles looks for a text in the files of a directory.
func inFiles(t *testing.T, dir, text string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		if bytes.Contains(raw, []byte(text)) {
			t.Errorf("%s has the secret of a token", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestHostsPartition cuts the leading host off from the others. It needs network namespaces.
func TestHostsPartition(t *testing.T) {
	if testing.Short() {
		t.Skip("-short skips this test, because it takes long")
	}
	if err := netns.Available(); err != nil {
		t.Skip(err)
	}
	n, err := netns.New(3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	names := []string{"one", "two", "three"}
	at := func(i int) string { return net.JoinHostPort(n.Hosts[i].IP.String(), "2380") }
	var all []*cluster
	token := ""
	for i, name := range names {
		c := newCluster(t)
		c.client = net.JoinHostPort(n.Hosts[i].IP.String(), "2379")
		args := []string{"up", "--config", c.config, "--client-listen", c.client, "--hosts-name", name, "--hosts-address", at(i)}
		if i > 0 {
			args = append(args, "--join", at(0), "--token-file", token)
		}
		cmd := c.command(args...)
		cmd.Env = append(os.Environ(), "HTTPS_PROXY=http://127.0.0.1:1") // hosts talk to each other directly
		if err := n.Hosts[i].Start(cmd); err != nil {
			t.Fatal(err)
		}
		c.started(cmd)
		all = append(all, c)
		if i == 0 {
			c.full()
			init := c.command("hosts", "init", "--config", c.config, "--address", at(0), "--name", name)
			if err := n.Hosts[0].Do(init.Run); err != nil {
				t.Fatal(err)
			}
			token = c.token()
		}
		all[0].votes(i + 1)
		c.engines()
	}
	lead := slices.IndexFunc(all[0].votes(3).Hosts, func(h hosts.Host) bool { return h.Role == hosts.RoleLeader })
	lead = slices.Index(names, all[0].list().Hosts[lead].Name)
	var rest []*cluster
	var ends []*netns.Host
	for i := range all {
		if i != lead {
			rest, ends = append(rest, all[i]), append(ends, n.Hosts[i])
		}
	}
	alone := all[lead].dial()
	put(t, alone, "key", "before")
	l := loads(t, dialAll(t, rest...), "load")
	if err := n.Part(n.Hosts[lead:lead+1], ends); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the others have another leader", func() bool {
		var now hosts.List
		code, _ := rest[0].hosts(&now)
		return code == 0 && slices.ContainsFunc(now.Hosts, func(h hosts.Host) bool { return h.Role == hosts.RoleLeader && h.Name != names[lead] })
	})
	l.more(t, 50)
	put(t, dialAll(t, rest...), "key", "during")
	// The host that is cut off refuses writes and linearizable reads, and says why.
	eventually(t, "the minority refuses a write", func() bool {
		ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(context.Background()), patience)
		defer cancel()
		_, err := alone.Put(ctx, "key", "minority")
		return err != nil && strings.Contains(err.Error(), "no leader")
	})
	if _, err := alone.Put(testContext(t), "key", "minority"); err == nil || !strings.Contains(err.Error(), "etcdserver: no leader") {
		t.Errorf("a write to the minority: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if got, err := alone.Get(ctx, "key"); err == nil {
		t.Errorf("the minority answers a linearizable read: %v", got.Kvs)
	} else {
		t.Logf("a read there: %v", err)
	}
	if code, out := all[lead].run("hosts", "--config", all[lead].config); code != 0 || !strings.Contains(out, "NO MAJORITY") {
		t.Errorf("hosts in the minority: %d\n%s", code, out)
	}
	gap, failed := l.end()
	t.Logf("longest gap at the majority: %s, %d requests failed", gap, len(failed))
	if err := n.Heal(); err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		c.votes(3)
		if got := must(c.dial().Get(testContext(t), "key"))(t); len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "during" {
			t.Errorf("after the partition: %v", got.Kvs)
		}
	}
}

// TestHostsChaos is a run with several hosts, as long as DYNAST_E2E_CHAOS says.
func TestHostsChaos(t *testing.T) {
	duration := os.Getenv("DYNAST_E2E_CHAOS")
	if duration == "" {
		t.Skip("runs of several hosts still end in findings now and then; set DYNAST_E2E_CHAOS, for example to 60s")
	}
	if err := netns.Available(); err != nil {
		t.Skip(err)
	}
	seed, _ := seeded(t)
	r := runChaos(t, "--hosts", "3", "--followers", "1", "--duration", duration, "--seed", fmt.Sprint(seed))
	r.passed(t)
	if r.report.Hosts != 3 || len(r.report.Replicas) < 3 {
		t.Errorf("the report has %d hosts and %d replicas", r.report.Hosts, len(r.report.Replicas))
	}
	t.Logf("%d faults, %+v", len(r.report.Faults), r.report.FaultStats)
}
