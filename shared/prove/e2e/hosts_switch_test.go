package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dynast-io/dynast/shared/host/crash"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member/hosts"
)

// crashes is the directory in which a test names the steps at which a process dies.
type crashes struct {
	t   *testing.T
	dir string
}

// withCrashes must be called before the cluster starts.
func withCrashes(t *testing.T) crashes {
	dir := t.TempDir()
	t.Setenv(crash.Env, dir)
	return crashes{t, dir}
}

func (c crashes) at(step string) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, step), nil, 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// reached reports whether a process has died at a step.
func (c crashes) reached(step string) bool {
	_, err := os.Stat(filepath.Join(c.dir, step))
	return os.IsNotExist(err)
}

// engines returns the engines of the cluster's data directory.
func (c *cluster) engines() []proc.Identity {
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		c.t.Fatal(err)
	}
	var out []proc.Identity
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(raw, []byte("\x00engine\x00--data-dir\x00"+c.dir+"\x00")) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			c.t.Fatal(err)
		}
		if id, err := proc.Identify(pid); err == nil {
			c.note(id)
			out = append(out, id)
		}
	}
	return out
}

// killHost kills everything on a host: the members and the engine.
func (c *cluster) killHost() {
	c.t.Helper()
	eventually(c.t, "no process of the host is left", func() bool {
		all := append(c.everyone(), c.engines()...)
		for _, id := range all {
			signalSame(id, syscall.SIGKILL)
		}
		return len(all) == 0
	})
}

// serves waits until the cluster takes writes. If no member is left, it starts the cluster again.
func (c *cluster) serves(cl *clientv3.Client) {
	c.t.Helper()
	eventually(c.t, "the cluster takes writes", func() bool {
		if len(c.everyone()) == 0 {
			c.up()
		}
		c.engines() // notes them for the end of the test
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_, err := cl.Put(ctx, "serves", "x")
		return err == nil
	})
}

func (c *cluster) address() string { return fmt.Sprintf("127.0.0.1:%d", freePort(c.t)) }

// hosts runs "dynast hosts ..." and decodes its JSON.
func (c *cluster) hosts(into any, args ...string) (code int, out string) {
	c.t.Helper()
	cmd := c.command(append(append([]string{"hosts"}, args...), "--config", c.config, "--json")...)
	var b bytes.Buffer
	var problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &problem
	_ = cmd.Run() // the exit code says it
	code = cmd.ProcessState.ExitCode()
	if code == 0 && into != nil {
		if err := json.Unmarshal(b.Bytes(), into); err != nil {
			c.t.Fatalf("dynast hosts %q: %v: %s", args, err, b.String())
		}
	}
	return code, b.String() + problem.String()
}

// must runs a command that has to succeed.
func (c *cluster) mustHosts(into any, args ...string) {
	c.t.Helper()
	if code, out := c.hosts(into, args...); code != 0 {
		c.t.Fatalf("dynast hosts %q: exit code %d\n%s", args, code, out)
	}
}

func alarms(t *testing.T, cl *clientv3.Client) string {
	t.Helper()
	var out []string
	for _, a := range must(cl.AlarmList(testContext(t)))(t).Alarms {
		out = append(out, a.Alarm.String())
	}
	return strings.Join(out, ",")
}

func raise(t *testing.T, cl *clientv3.Client, member uint64) {
	t.Helper()
	maintenance := pb.NewMaintenanceClient(cl.ActiveConnection())
	if _, err := maintenance.Alarm(testContext(t), &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: member, Alarm: pb.AlarmType_NOSPACE}); err != nil {
		t.Fatal(err)
	}
}

// TestHostsSwitchesKeepEverything compares everything that clients can see before and after a host
// becomes the first of several, and after it goes back.
func TestHostsSwitchesKeepEverything(t *testing.T) {
	c := start(t)
	fill(t, c.dial())
	root := client(t, c.client, "root", "secret")
	fillMore(t, root)
	want := takePicture(t, c.client)
	raise(t, root, 0)
	full := takePicture(t, c.client) // with the alarm, other writes are refused
	revision := must(root.Get(testContext(t), "x"))(t).Header.Revision

	if code, out := c.hosts(nil, "leave", "--last"); code != 1 || !strings.Contains(out, "single host already") {
		t.Errorf("leave of a single host: %d %s", code, out)
	}
	address := c.address()
	var switched hosts.InitResponse
	c.mustHosts(&switched, "init", "--address", address, "--name", "one")
	c.engines()
	takePicture(t, c.client).same(t, full)
	root = client(t, c.client, "root", "secret") // a login belongs to one store
	if got := alarms(t, root); got != "NOSPACE" {
		t.Errorf("alarms after init: %q", got)
	}
	if code, out := c.hosts(nil, "leave"); code != 1 || !strings.Contains(out, "--last") {
		t.Errorf("leave of the last host: %d %s", code, out)
	}
	c.mustHosts(nil, "init", "--address", address) // a repetition
	var left hosts.LeaveResponse
	c.mustHosts(&left, "leave", "--last")
	if left.Revision != revision || !left.Done || left.Paused <= 0 {
		t.Errorf("leave: %+v, want revision %d", left, revision)
	}
	takePicture(t, c.client).same(t, full)
	root = client(t, c.client, "root", "secret")
	if got := alarms(t, root); got != "NOSPACE" {
		t.Errorf("alarms after leave: %q", got)
	}
	must(root.AlarmDisarm(testContext(t), &clientv3.AlarmMember{}))(t)
	if len(c.engines()) > 0 {
		t.Error("an engine is left")
	}
	eventually(t, "the data of the cluster of hosts is removed", func() bool {
		_, err := os.Stat(filepath.Join(c.dir, "hosts", "engine"))
		return os.IsNotExist(err)
	})
	c.continues(want, revision)
	t.Logf("paused for %s and %s", switched.Paused, left.Paused)
	var again hosts.LeaveResponse
	if c.mustHosts(&again, "leave", "--last"); again != (hosts.LeaveResponse{Name: "one", Done: true, Revision: left.Revision, Bytes: left.Bytes, Paused: left.Paused}) {
		t.Errorf("a repeated leave: %+v", again)
	}
}

// TestHostsSwitchesUnderLoad measures how long writes pause, and follows every write with one watch.
func TestHostsSwitchesUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("-short skips this test, because it takes long")
	}
	mib := 20
	if fullLoad {
		mib = 100
	}
	c := start(t)
	order := func(args ...string) { c.order(args...) }
	order("stop")
	c.inflate(mib*1024, 1000)
	c.up()
	c.full()
	cl := c.dial()
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	first := must(cl.Put(ctx, "load", "0"))(t).Header.Revision
	events := make(chan int64, 1<<20)
	watching := make(chan error, 1)
	go func() {
		defer close(events)
		for resp := range cl.Watch(ctx, "load", clientv3.WithRev(first)) {
			if err := resp.Err(); err != nil {
				watching <- err
				return
			}
			for _, ev := range resp.Events {
				events <- ev.Kv.ModRevision
			}
		}
	}()
	var longest, count atomic.Int64
	writing := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		defer close(writing)
		for i, last := 1, time.Now(); ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			one, done := context.WithTimeout(ctx, 10*time.Second)
			_, err := cl.Put(one, "load", fmt.Sprint(i))
			done()
			if err != nil {
				continue
			}
			count.Add(1)
			longest.Store(max(longest.Load(), int64(time.Since(last))))
			last = time.Now()
		}
	}()
	steady := func() {
		n := count.Load()
		eventually(t, "writes go on", func() bool { return count.Load() > n+20 })
	}
	steady()
	var switched hosts.InitResponse
	c.mustHosts(&switched, "init", "--address", c.address())
	c.engines()
	steady()
	t.Logf("%d MiB, init: writes paused for %s, longest gap of a writer %s", mib, switched.Paused, time.Duration(longest.Swap(0)))
	var left hosts.LeaveResponse
	c.mustHosts(&left, "leave", "--last")
	steady()
	t.Logf("%d MiB, leave: writes paused for %s, longest gap of a writer %s", mib, left.Paused, time.Duration(longest.Swap(0)))
	close(stop)
	<-writing
	last := must(cl.Get(ctx, "load"))(t).Kvs[0].ModRevision
	next := first
	for next <= last {
		select {
		case rev, ok := <-events:
			if !ok {
				t.Fatalf("the watch ended before revision %d: %v", next, <-watching)
			}
			if rev != next {
				t.Fatalf("the watch returned revision %d, want %d", rev, next)
			}
			next++
		case <-ctx.Done():
			t.Fatalf("the watch has no event of revision %d", next)
		}
	}
	t.Logf("%d events without a gap", last-first+1)
}

// TestHostsSwitchesKilledAtEachStep kills a process at each step of the way to several hosts and back.
// Afterwards either store serves and is complete, and the repeated command succeeds.
func TestHostsSwitchesKilledAtEachStep(t *testing.T) {
	if testing.Short() {
		t.Skip("-short skips this test, because it takes long")
	}
	dies := withCrashes(t)
	c := start(t)
	cl := c.dial()
	ctx := testContext(t)
	lease := must(cl.Grant(ctx, 3600))(t)
	for i := range 50 {
		must(cl.Put(ctx, fmt.Sprintf("k%02d", i), "x", clientv3.WithLease(lease.ID)))(t)
	}
	written := 0
	complete := func(when string) {
		t.Helper()
		if got := must(cl.Get(testContext(t), "k", clientv3.WithPrefix()))(t); got.Count != int64(50+written) {
			t.Fatalf("%s: %d keys instead of %d", when, got.Count, 50+written)
		}
		if got := must(cl.TimeToLive(testContext(t), lease.ID, clientv3.WithAttachedKeys()))(t); len(got.Keys) != 50 {
			t.Fatalf("%s: the lease has %d keys", when, len(got.Keys))
		}
		must(cl.Put(testContext(t), fmt.Sprintf("knew%03d", written), "x"))(t)
		written++
	}
	try := func(step string, all bool, args ...string) {
		t.Helper()
		dies.at(step)
		code, out := c.hosts(nil, args...)
		if !dies.reached(step) {
			t.Fatalf("no process reached %s: %d %s", step, code, out)
		}
		if all {
			c.killHost()
		}
		c.serves(cl)
		complete("killed at " + step)
	}
	succeed := func(args ...string) {
		t.Helper()
		last := ""
		eventually(t, "the repeated command succeeds", func() bool {
			code, out := c.hosts(nil, args...)
			last = out
			return code == 0
		})
		c.serves(cl)
		complete(fmt.Sprintf("%q", args) + last)
	}
	inits := []string{"init-paused", "init-copied", "init-recorded", "engine-serve", "engine-served", "init-served"}
	leaves := []string{"leave-begin", "leave-halted", "leave-copied", "leave-complete", "leave-stopped", "leave-old-slots", "leave-new-slots",
		"leave-old-cluster.json", "leave-new-cluster.json", "leave-new-succession.json", "leave-new-claims.json", "leave-record", "leave-switch"}
	for i, step := range leaves {
		began := time.Now()
		address := c.address()
		init := inits[i%len(inits)]
		all := i >= len(inits) // the second time, everything on the host is killed
		try(init, all, "init", "--address", address)
		succeed("init", "--address", address)
		try(step, all, "leave", "--last")
		succeed("leave", "--last")
		t.Logf("%s and %s: %s", init, step, time.Since(began).Round(time.Millisecond))
	}
}

// TestHostsInitGoesBack: an engine that cannot serve leaves everything as it was.
func TestHostsInitGoesBack(t *testing.T) {
	if testing.Short() {
		t.Skip("-short skips this test, because it takes long")
	}
	dies := withCrashes(t)
	c := start(t)
	fill(t, c.dial())
	want := takePicture(t, c.client)
	dies.at("engine-serve.always")
	code, out := c.hosts(nil, "init", "--address", c.address())
	if code != 1 || !strings.Contains(out, "nothing was changed, and clients are served as before") {
		t.Errorf("%d %s", code, out)
	}
	takePicture(t, c.client).same(t, want)
	if len(c.engines()) > 0 {
		t.Error("an engine is left")
	}
	// The heir of a leader that dies meanwhile goes back too.
	dies.at("init-recorded")
	if code, _ := c.hosts(nil, "init", "--address", c.address()); code == 0 || !dies.reached("init-recorded") {
		t.Errorf("init of a leader that dies: %d", code)
	}
	eventually(t, "the heir has gone back", func() bool { return strings.Contains(c.logText(), "the switch to several hosts: address=") })
	takePicture(t, c.client).same(t, want)
	if err := os.Remove(filepath.Join(dies.dir, "engine-serve.always")); err != nil {
		t.Fatal(err)
	}
	c.mustHosts(nil, "init", "--address", c.address())
	c.engines()
	takePicture(t, c.client).same(t, want)
}

// TestHostsInitWithTakenPort: another program takes the port after init has checked it. Clients are
// then served as before.
func TestHostsInitWithTakenPort(t *testing.T) {
	if testing.Short() {
		t.Skip("-short skips this test, because it takes long")
	}
	c := start(t)
	fill(t, c.dial())
	want := takePicture(t, c.client)
	address := c.address()
	taken := make(chan error, 1)
	go func() {
		// The directory appears right after the check, and before writes pause.
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
			if _, err := os.Stat(filepath.Join(c.dir, "hosts")); err == nil {
				l, err := net.Listen("tcp", address)
				if err == nil {
					t.Cleanup(func() { _ = l.Close() })
				}
				taken <- err
				return
			}
		}
		taken <- os.ErrDeadlineExceeded
	}()
	began := time.Now()
	code, out := c.hosts(nil, "init", "--address", address)
	if err := <-taken; err != nil {
		t.Fatal(err)
	}
	if code != 1 || !strings.Contains(out, "nothing was changed, and clients are served as before") || !strings.Contains(out, "in use") {
		t.Errorf("%d %s", code, out)
	}
	t.Logf("back after %s", time.Since(began).Round(time.Millisecond))
	takePicture(t, c.client).same(t, want)
	if len(c.engines()) > 0 {
		t.Error("an engine is left")
	}
	var switched hosts.InitResponse
	c.mustHosts(&switched, "init", "--address", c.address())
	c.engines()
	takePicture(t, c.client).same(t, want)
}
