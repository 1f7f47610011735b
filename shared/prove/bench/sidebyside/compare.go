package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/dynast-io/dynast/shared/prove/bench"
)

// load is one row of the comparison.
type load struct {
	title                string
	workload             string
	clients, connections int
	keyBytes, valueBytes int
	extra                []string
	// echo and disk say whether these limits apply to the load.
	echo, disk bool
}

func loads(o *options) []load {
	put := func(n int) load {
		return load{title: fmt.Sprintf("put, %d clients", n), workload: "put", clients: n, echo: true, disk: true}
	}
	get := func(n int) load {
		return load{title: fmt.Sprintf("get, linearizable, %d clients", n), workload: "get", clients: n, echo: true}
	}
	all := []load{put(1), put(64), put(256), get(1), get(64),
		{title: "get, serializable, 64 clients", workload: "get", clients: 64, extra: []string{"--serializable"}, echo: true},
		{title: "mixed, 90 % reads, 64 clients", workload: "mixed", clients: 64, echo: true},
		{title: "txn, 64 clients", workload: "txn", clients: 64, echo: true, disk: true},
		{title: "lease, 16 clients", workload: "lease", clients: 16},
		{title: "watch, 16 watchers", workload: "watch", clients: 17},
	}
	all[1].title, all[0].title = "put, 64 clients", "put, 1 client"
	all[3].title = "get, linearizable, 1 client"
	for i := range all {
		all[i].connections = max(1, min(all[i].clients/16, 8))
		all[i].keyBytes, all[i].valueBytes = 16, o.valueBytes
	}
	if o.only != nil {
		all = slices.DeleteFunc(all, func(l load) bool { return !o.only.MatchString(l.title) })
	}
	return all
}

// figures holds all measurements.
type figures struct {
	systems []string
	loads   []load
	results map[string]map[string][]*bench.Result // by load and system, one for each round
	idle    map[string]*bench.Resting
	memory  map[string]*bench.Resting
	// burst has the memory right after burstPuts puts of 64 clients. The number is the same for
	// all systems: the fastest one would have written the most in the same time.
	burst map[string]*bench.Result
	// failover has one result for each number of clients.
	failover []*bench.FailoverResult
	began    time.Time
}

const (
	baseName = "base"
	echoName = "echo"
	diskName = "disk"
)

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// sideBySide runs the whole comparison.
func sideBySide(ctx context.Context, r *runner, o *options) (*figures, error) {
	f := &figures{loads: loads(o), results: map[string]map[string][]*bench.Result{}, began: time.Now(),
		idle: map[string]*bench.Resting{}, memory: map[string]*bench.Resting{}, burst: map[string]*bench.Result{}}
	peers, echo, err := startAll(ctx, r, o)
	if err != nil {
		return nil, err
	}
	for _, p := range peers {
		f.systems = append(f.systems, p.name)
	}
	if o.only == nil {
		if err := f.atRest(ctx, r, o, peers); err != nil {
			return nil, err
		}
	}
	for round := range o.rounds {
		for _, l := range f.loads {
			say("round %d of %d: %s", round+1, o.rounds, l.title)
			if err := f.turn(ctx, r, o, l, peers, echo); err != nil {
				return nil, err
			}
		}
	}
	if o.only != nil {
		return f, nil
	}
	return f, f.killLeaders(ctx, r, o, peers[0])
}

func startAll(ctx context.Context, r *runner, o *options) (peers []*running, echo *running, err error) {
	dynast, err := startDynast(ctx, r, dynastName, r.dynast, o.followers)
	if err != nil {
		return nil, nil, err
	}
	etcd1, err := startEtcd(ctx, r, 1)
	if err != nil {
		return nil, nil, err
	}
	if o.base != "" {
		base, err := startDynast(ctx, r, baseName, o.base, o.followers)
		return []*running{dynast, base, etcd1}, nil, err
	}
	etcd3, err := startEtcd(ctx, r, 3)
	if err != nil {
		return nil, nil, err
	}
	echo, err = startEcho(ctx, r)
	return []*running{dynast, etcd1, etcd3}, echo, err
}

// burstPuts is the number of puts after which the memory is measured.
const burstPuts = 100_000

// atRest writes the same data to all systems, and measures their memory and then their idle cost.
// At last it writes the same amount of further data, and measures the memory right after that.
func (f *figures) atRest(ctx context.Context, r *runner, o *options, peers []*running) error {
	for _, p := range peers {
		say("memory of %s", p.name)
		m, err := measure[bench.Resting](ctx, r, p, "memory", "--keys", strconv.Itoa(o.keys), "--value-bytes", strconv.Itoa(o.valueBytes),
			"--rest", min(o.rest, 5*time.Second).String())
		if err != nil {
			return err
		}
		f.memory[p.name] = m
	}
	for _, p := range peers {
		say("%s, idle", p.name)
		m, err := measure[bench.Resting](ctx, r, p, "idle", "--duration", o.rest.String())
		if err != nil {
			return err
		}
		f.idle[p.name] = m
	}
	for _, p := range peers {
		say("%s, a burst of puts", p.name)
		res, err := measure[bench.Result](ctx, r, p, "put", "--clients", "64", "--connections", "4", "--duration", "0",
			"--total", strconv.Itoa(min(burstPuts, 100*o.keys)), "--keys", strconv.Itoa(min(o.keys, 10_000)), "--value-bytes", strconv.Itoa(o.valueBytes))
		if err != nil {
			return err
		}
		f.burst[p.name] = res
	}
	return nil
}

// turn measures one load on all systems, one after the other.
func (f *figures) turn(ctx context.Context, r *runner, o *options, l load, peers []*running, echo *running) error {
	note := func(system string, res *bench.Result) {
		if f.results[l.title] == nil {
			f.results[l.title] = map[string][]*bench.Result{}
		}
		f.results[l.title][system] = append(f.results[l.title][system], res)
	}
	systems := slices.Clone(peers)
	if n := len(f.results[l.title][dynastName]); n%2 == 1 {
		slices.Reverse(systems) // no system always runs right after the same other one
	}
	if l.echo && echo != nil {
		systems = append(systems, echo)
	}
	for _, p := range systems {
		args := append([]string{l.workload, "--clients", strconv.Itoa(l.clients), "--connections", strconv.Itoa(l.connections),
			"--keys", strconv.Itoa(min(o.keys, 10_000)), "--key-bytes", strconv.Itoa(l.keyBytes), "--value-bytes", strconv.Itoa(l.valueBytes),
			"--duration", o.duration.String(), "--seed", strconv.Itoa(len(f.results[l.title][p.name]) + 1)}, l.extra...)
		if l.workload != "watch" {
			args = append(args, "--warmup", o.warmup.String())
		}
		res, err := measure[bench.Result](ctx, r, p, args...)
		if err != nil {
			return err
		}
		if res.Errors > 0 {
			say("%s: %d requests failed, the first: %s", p.name, res.Errors, res.FirstError)
		}
		note(p.name, res)
	}
	if l.disk && echo != nil {
		res, err := diskLimit(ctx, r.dir, l, o.duration)
		if err != nil {
			return err
		}
		note(diskName, res)
	}
	return ctx.Err()
}

// killLeaders measures takeovers with one client and with many. It runs last, because takeovers
// change the processes.
func (f *figures) killLeaders(ctx context.Context, r *runner, o *options, dynast *running) error {
	dynast.pids = nil // the processes change
	for _, clients := range []int{1, 64} {
		say("failover, %d clients", clients)
		res, err := measure[bench.FailoverResult](ctx, r, dynast, "failover", "--kills", strconv.Itoa(o.kills), "--clients", strconv.Itoa(clients))
		if err != nil {
			return err
		}
		f.failover = append(f.failover, res)
	}
	return nil
}
