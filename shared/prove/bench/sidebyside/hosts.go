package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/shared/prove/bench"
	"github.com/dynast-io/dynast/shared/prove/netns"
)

// Several hosts are network namespaces, joined by a bridge. dynast and plain etcd run in the same ones,
// with the same settings and with TLS between the hosts. The clients run outside.
const (
	hostsNumber = 3
	// dynast's default for hosts.election, and the heartbeat that follows from it.
	hostsElection  = 500 * time.Millisecond
	hostsHeartbeat = hostsElection / 10
	hostsLimit     = time.Minute
	hostsSettle    = 30 * time.Second
	// hostsWriters write at the same time. A write that a follower had passed on to a leader that dies is
	// answered only after etcd's own timeout of 5 s, so one writer alone would mostly show that.
	hostsWriters = 16
)

// hostSystem is a store on several hosts.
type hostSystem struct {
	*running
	// pid returns the process of the store on a host.
	pid func(ctx context.Context, host int) (int, error)
	// again starts the store on a host again after its process was killed. It is nil if the system does
	// that itself.
	again func(host int) error
}

// within returns the program and the arguments that run a program in the namespace of a host. The program
// keeps the pid of the process.
func within(n *netns.Network, host int, program string, args ...string) (string, []string) {
	return "ip", append([]string{"netns", "exec", n.Hosts[host].Name, program}, args...)
}

func etcdHosts(ctx context.Context, r *runner, n *netns.Network) (*hostSystem, error) {
	const name = "etcd"
	dir, err := r.directory(name)
	if err != nil {
		return nil, err
	}
	var peers []string
	for i, h := range n.Hosts {
		peers = append(peers, fmt.Sprintf("m%d=https://%s:12380", i, h.IP))
	}
	s := &hostSystem{running: &running{name: name}}
	commands := make([]*exec.Cmd, len(n.Hosts))
	start := func(i int) (err error) {
		program, args := within(n, i, r.self, "etcd", fmt.Sprintf("m%d", i), dir, "http://"+s.endpoints[i], strings.Join(peers, ","),
			hostsHeartbeat.String(), hostsElection.String())
		commands[i], err = r.start(name, program, args...)
		return err
	}
	for i, h := range n.Hosts {
		s.endpoints = append(s.endpoints, fmt.Sprintf("%s:12379", h.IP))
		if err := start(i); err != nil {
			return nil, err
		}
	}
	s.pid = func(_ context.Context, host int) (int, error) { return commands[host].Process.Pid, nil }
	s.again = func(host int) error {
		_ = commands[host].Wait() // it was killed
		return start(host)
	}
	return s, s.full(ctx)
}

func dynastHosts(ctx context.Context, r *runner, n *netns.Network) (*hostSystem, error) {
	dir, err := r.directory(dynastName)
	if err != nil {
		return nil, err
	}
	s := &hostSystem{running: &running{name: dynastName}}
	var dirs []string
	do := func(host int, args ...string) ([]byte, error) {
		program, all := within(n, host, r.dynast, append(args, "--data-dir", dirs[host])...)
		out, err := exec.CommandContext(ctx, program, all...).Output()
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			err = fmt.Errorf("dynast %s: %w: %s", strings.Join(args, " "), err, exit.Stderr)
		}
		return out, err
	}
	token := filepath.Join(dir, "token")
	for i, h := range n.Hosts {
		data, client := filepath.Join(dir, fmt.Sprint(i)), fmt.Sprintf("%s:2379", h.IP)
		dirs, s.endpoints = append(dirs, data), append(s.endpoints, client)
		config := data + ".hcl"
		hcl := fmt.Sprintf("data_dir = %q\nfollowers = 1\nclient { listen = %q }\nlog { level = \"error\" }\nstore { quota = \"8GiB\" }\nhosts {\n  name = \"h%d\"\n  address = \"%s:2380\"\n  election = %q\n",
			data, client, i, h.IP, hostsElection)
		if i > 0 {
			hcl += fmt.Sprintf("  join = \"%s:2380\"\n  token_file = %q\n", n.Hosts[0].IP, token)
		}
		if err := os.WriteFile(config, []byte(hcl+"}\n"), 0o600); err != nil {
			return nil, err
		}
		program, args := within(n, i, r.dynast, "up", "--config", config)
		if _, err := r.start(dynastName, program, args...); err != nil {
			return nil, err
		}
		r.clusters = append(r.clusters, &running{name: dynastName, dataDir: data})
		if i > 0 {
			continue
		}
		if err := until(ctx, hostsLimit, "make the first host", func() error {
			_, err := do(0, "hosts", "init", "--address", fmt.Sprintf("%s:2380", h.IP))
			return err
		}); err != nil {
			return nil, err
		}
		secret, err := do(0, "hosts", "token")
		if err == nil {
			err = os.WriteFile(token, secret, 0o600)
		}
		if err != nil {
			return nil, err
		}
	}
	s.pid = func(_ context.Context, host int) (int, error) {
		out, err := do(host, "hosts", "--json")
		var l hosts.List
		if err == nil {
			err = json.Unmarshal(out, &l)
		}
		for _, h := range l.Hosts {
			if h.Name == l.Self && h.Status != nil && err == nil {
				return h.Status.PID, nil
			}
		}
		return 0, errors.Join(fmt.Errorf("the engine of host %d is not known", host), err)
	}
	s.pids = nil
	return s, s.full(ctx)
}

// leading returns the number of the host that leads. Without an error, all hosts answer and agree, and
// all of them vote.
func (s *hostSystem) leading(ctx context.Context) (int, error) {
	c, err := clientv3.New(clientv3.Config{Endpoints: s.endpoints, Logger: zap.NewNop()})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	lead, at := uint64(0), -1
	for i, e := range s.endpoints {
		st, err := c.Status(ctx, e)
		switch {
		case err != nil:
			return 0, err
		case st.IsLearner || st.Leader == 0 || lead != 0 && st.Leader != lead:
			return 0, fmt.Errorf("%s does not follow the leader", e)
		}
		if lead = st.Leader; lead == st.Header.MemberId {
			at = i
		}
	}
	if at < 0 {
		return 0, errors.New("the leader does not answer")
	}
	return at, nil
}

func (s *hostSystem) full(ctx context.Context) error {
	return until(ctx, hostsLimit, "wait until all hosts of "+s.name+" serve", func() error {
		_, err := s.leading(ctx)
		return err
	})
}

// lost measures what clients notice when a process is killed again and again. victim returns the host and
// its process; the store of that host is started again if restart is true.
func (s *hostSystem) lost(ctx context.Context, kills int, endpoints []string, restart bool, victim func(context.Context) (int, int, error)) (*bench.FailoverResult, error) {
	return bench.Failover(ctx, bench.FailoverConfig{
		Target: bench.Target{Endpoints: endpoints}, Kills: kills, Clients: hostsWriters, Settle: hostsSettle, Progress: os.Stderr,
		Find: func(ctx context.Context) (bench.Leader, error) {
			if _, err := s.leading(ctx); err != nil {
				return bench.Leader{}, err
			}
			host, pid, err := victim(ctx)
			kill := func() error {
				err := unix.Kill(pid, unix.SIGKILL)
				if err == nil && restart && s.again != nil {
					err = s.again(host)
				}
				return err
			}
			return bench.Leader{PID: pid, Kill: kill, Full: err == nil}, err
		},
	})
}

// hostLosses are the measured losses, in the order of the table.
func hostLosses(ctx context.Context, kills int, systems []*hostSystem) ([][]string, error) {
	var rows [][]string
	for _, s := range systems {
		add := func(what string, r *bench.FailoverResult, err error) error {
			if err != nil {
				return fmt.Errorf("%s, %s: %w", s.name, what, err)
			}
			rows = append(rows, lossRow(what, s, r))
			return nil
		}
		say("%s: the store of the leading host is killed", s.name)
		res, err := s.lost(ctx, kills, s.endpoints, true, func(ctx context.Context) (int, int, error) {
			host, err := s.leading(ctx)
			if err != nil {
				return 0, 0, err
			}
			pid, err := s.pid(ctx, host)
			return host, pid, err
		})
		if err := add("the store of the leading host is killed; the client knows all hosts", res, err); err != nil {
			return nil, err
		}
		host, err := s.leading(ctx)
		if err != nil {
			return nil, err
		}
		other := (host + 1) % len(s.endpoints)
		say("%s: the store of another host is killed", s.name)
		res, err = s.lost(ctx, kills, s.endpoints[other:other+1], true, func(ctx context.Context) (int, int, error) {
			pid, err := s.pid(ctx, other)
			return other, pid, err
		})
		if err := add("the store of another host is killed; the client knows only that host", res, err); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(rows, func(a, b []string) int { return strings.Compare(a[0], b[0]) })
	return rows, nil
}

// memberLoss kills dynast's leader on the leading host.
func memberLoss(ctx context.Context, r *runner, kills int, s *hostSystem, clusters []*running) ([]string, error) {
	host, err := s.leading(ctx)
	if err != nil {
		return nil, err
	}
	say("%s: the supervising member of the leading host is killed", s.name)
	res, err := s.lost(ctx, kills, s.endpoints, false, func(ctx context.Context) (int, int, error) {
		t, err := r.tree(ctx, clusters[host])
		if err != nil {
			return 0, 0, err
		}
		for _, m := range t.Members {
			if m.Address == t.Leader && len(t.Members) > 1 {
				return host, m.PID, nil
			}
		}
		return 0, 0, errors.New("no member leads")
	})
	if err != nil {
		return nil, err
	}
	return lossRow("dynast's own leader on the leading host is killed", s, res), nil
}

func lossRow(what string, s *hostSystem, r *bench.FailoverResult) []string {
	return []string{what, s.name, fmt.Sprint(r.Kills), ms(r.Median), ms(r.P99), ms(r.Worst), ms(r.SlowestClient), fmt.Sprint(r.Attempts), fmt.Sprintf("%d, %d", r.Writes, len(r.Missing))}
}

// measureHosts runs the whole measurement and returns it as Markdown.
func measureHosts(ctx context.Context, r *runner, o *options) (text string, err error) {
	if err := netns.Available(); err != nil {
		return "", err
	}
	n, err := netns.New(hostsNumber)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, r.end(), n.Close()) }()
	began := time.Now()
	d, err := dynastHosts(ctx, r, n)
	if err != nil {
		return "", err
	}
	clusters := slices.Clone(r.clusters)
	e, err := etcdHosts(ctx, r, n)
	if err != nil {
		return "", err
	}
	f := &figures{loads: slices.DeleteFunc(loads(o), func(l load) bool { return l.workload == "watch" }), results: map[string]map[string][]*bench.Result{}, began: began}
	peers := []*running{d.running, e.running}
	for round := range o.rounds {
		for i := range f.loads {
			l := f.loads[i]
			l.echo, l.disk = false, false
			say("round %d of %d: %s", round+1, o.rounds, l.title)
			if err := f.turn(ctx, r, o, l, peers, nil); err != nil {
				return "", err
			}
		}
		slices.Reverse(peers)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\nCommand: `scripts/bench.sh%s`: %d rounds of %s for each figure. The clients know all three hosts.\n\n", machine(began), o.line, o.rounds, o.duration)
	fmt.Fprintf(&b, "| load | dynast: operations per second | etcd | dynast / etcd | p99 of dynast, etcd in ms |\n| --- | --- | --- | --- | --- |\n")
	for _, l := range f.loads {
		ours, theirs := f.results[l.title][dynastName], f.results[l.title][e.name]
		a, _ := spreadOf(ours, perSecond)
		c, _ := spreadOf(theirs, perSecond)
		ap, _ := spreadOf(ours, p99)
		cp, _ := spreadOf(theirs, p99)
		fmt.Fprintf(&b, "| %s | %.0f (%.0f to %.0f) | %.0f (%.0f to %.0f) | %s | %.1f, %.1f |\n", l.title, a.median, a.low, a.high, c.median, c.low, c.high, ratio(ours, theirs, perSecond), ap.median/1e6, cp.median/1e6)
	}
	if o.only != nil {
		return b.String(), nil
	}
	rows, err := hostLosses(ctx, o.kills, []*hostSystem{d, e})
	if err != nil {
		return "", err
	}
	member, err := memberLoss(ctx, r, o.kills, d, clusters)
	if err != nil {
		return "", err
	}
	fmt.Fprintf(&b, "\nA killed etcd is started again at once by the measurement. dynast does that itself.\n\n"+
		"%d clients write at the same time.\n\n| what | system | kills | longest time without an acknowledged write: median, ms | p99 | worst | the client that waited longest: median | failed requests | acknowledged writes, missing |\n"+
		"| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n", hostsWriters)
	for _, row := range append(rows, member) {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
	}
	return b.String(), nil
}
