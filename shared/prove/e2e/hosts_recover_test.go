package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dynast-io/dynast/shared/member/hosts"
)

// first starts a cluster that is the first of several hosts.
func first(t *testing.T) (c *cluster, address string) {
	t.Helper()
	c = start(t)
	address = c.address()
	c.mustHosts(nil, "init", "--address", address, "--name", "one")
	c.engines()
	return c, address
}

// token makes a token that admits other hosts.
func (c *cluster) token() string {
	c.t.Helper()
	cmd := c.command("hosts", "token", "--config", c.config)
	out, err := cmd.Output()
	if err != nil {
		c.t.Fatal(err)
	}
	path := filepath.Join(c.t.TempDir(), "token")
	if err := os.WriteFile(path, out, 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// joins starts a host that joins another one, and waits until it votes.
func joins(t *testing.T, to *cluster, at, name, token string) *cluster {
	t.Helper()
	c := newCluster(t)
	c.up("--join", at, "--token-file", token, "--hosts-name", name, "--hosts-address", c.address())
	eventually(t, name+" votes", func() bool {
		c.everyone()
		c.engines()
		var l hosts.List
		if code, _ := to.hosts(&l); code != 0 {
			return false
		}
		for _, h := range l.Hosts {
			if h.Name == name {
				return h.Role == hosts.RoleFollower && h.Reachable
			}
		}
		return false
	})
	return c
}

// TestHostsRecover loses two of three hosts and forms a new cluster of the third.
func TestHostsRecover(t *testing.T) {
	if testing.Short() {
		t.Skip("-short skips this test, because it takes long")
	}
	one, at := first(t)
	token := one.token()
	two := joins(t, one, at, "two", token)
	three := joins(t, one, at, "three", token)
	cl, ctx := one.dial(), testContext(t)
	for i := range 20 {
		must(cl.Put(ctx, fmt.Sprintf("k%02d", i), "x"))(t)
	}
	if code, out := one.hosts(nil, "leave", "--last"); code != 1 || !strings.Contains(out, "is not the last host") {
		t.Errorf("leave --last with three hosts: %d %s", code, out)
	}
	if code, out := one.hosts(nil, "recover", "--yes"); code != 1 || !strings.Contains(out, "a majority answers") {
		t.Errorf("recover with a majority: %d %s", code, out)
	}
	members := must(cl.MemberList(ctx))(t)
	var lost, self uint64
	for _, m := range members.Members {
		switch m.Name {
		case "one":
			self = m.ID
		case "two":
			lost = m.ID
		}
	}
	raise(t, cl, lost)
	raise(t, cl, self)
	revision := must(cl.Get(ctx, "x"))(t).Header.Revision
	two.killHost()
	three.killHost()
	var look hosts.Recovery
	eventually(t, "the majority is lost", func() bool {
		code, _ := one.hosts(&look, "recover", "--dry-run")
		return code == 0
	})
	if look.Refused != "" || look.Revision != revision || look.NewCluster != "" || len(look.Hosts) != 3 || look.Needed != 2 || look.Answer != 1 || look.Missing == "" ||
		look.LeaderSeen.IsZero() || time.Since(look.LogWritten) > time.Hour {
		t.Errorf("dry run: %+v", look)
	}
	if code, out := one.hosts(nil, "recover"); code != 1 || !strings.Contains(out, "pass --yes") {
		t.Errorf("recover without anybody to ask: %d %s", code, out)
	}
	began := time.Now()
	var done hosts.Recovery
	one.mustHosts(&done, "recover", "--yes")
	t.Logf("recovered within %s", time.Since(began).Round(time.Millisecond))
	if done.NewCluster == "" || done.NewCluster == look.Cluster || done.Revision != revision {
		t.Errorf("recover: %+v", done)
	}
	var again hosts.Recovery
	if one.mustHosts(&again, "recover", "--yes"); again.NewCluster != done.NewCluster {
		t.Errorf("a repeated recover: %+v", again)
	}
	one.engines()
	if got := must(cl.Get(ctx, "k", clientv3.WithPrefix()))(t); got.Count != 20 || got.Header.Revision != revision {
		t.Errorf("%d keys at revision %d, want 20 at %d", got.Count, got.Header.Revision, revision)
	}
	// The alarm of the lost host is gone; that of this host can be cleared.
	eventually(t, "the alarm of the lost host is gone", func() bool {
		all := must(cl.AlarmList(testContext(t)))(t).Alarms
		return len(all) == 1 && all[0].MemberID == self
	})
	must(cl.AlarmDisarm(ctx, &clientv3.AlarmMember{}))(t)
	must(cl.Put(ctx, "after", "x"))(t)
	if left := must(cl.MemberList(ctx))(t).Members; len(left) != 1 {
		t.Errorf("members: %v", left)
	}
	// The old token admits nobody. A host with a new one becomes a voter.
	late := newCluster(t)
	cmd := late.command("up", "--config", late.config, "--join", at, "--token-file", token, "--hosts-name", "late", "--hosts-address", late.address())
	var problem bytes.Buffer
	cmd.Stderr = &problem
	if err := cmd.Run(); err == nil || !strings.Contains(problem.String(), "belongs to another cluster than the token") {
		t.Errorf("a join with a token of the old cluster: %v %s", err, problem.String())
	}
	four := joins(t, one, at, "four", one.token())
	if got := must(four.dial().Get(ctx, "after"))(t); got.Count != 1 {
		t.Error("the new host lacks the last write")
	}
	// A host of the old cluster comes back. It is told what to do, and changes nothing here.
	two.up()
	eventually(t, "the old host is told what to do", func() bool {
		two.everyone()
		two.engines()
		_, out := two.hosts(nil)
		return strings.Contains(out, "belongs to another cluster now") && strings.Contains(out, "move its data directory")
	})
	var l hosts.List
	if one.mustHosts(&l); len(l.Hosts) != 2 || l.Voting != 2 {
		t.Errorf("the hosts of the new cluster: %+v", l)
	}
	// The new host leaves again, in order, and the first one goes back to a single host.
	var left hosts.LeaveResponse
	if four.mustHosts(&left, "leave"); !left.Done || left.Name != "four" {
		t.Errorf("leave: %+v", left)
	}
	if code, out := four.hosts(nil); code != 1 || !strings.Contains(out, "no longer in its cluster") {
		t.Errorf("the host that has left: %d %s", code, out)
	}
	eventually(t, "no engine is left on it", func() bool { return len(four.engines()) == 0 })
	one.mustHosts(&left, "leave", "--last")
	if got := must(cl.Get(testContext(t), "after"))(t); got.Count != 1 {
		t.Error("the last write is lost")
	}
}

// TestHostsRecoverKilledAtEachStep kills a process at each step of a recovery. The new cluster then
// serves, or the repeated command makes it serve.
func TestHostsRecoverKilledAtEachStep(t *testing.T) {
	if testing.Short() {
		t.Skip("-short skips this test, because it takes long")
	}
	dies := withCrashes(t)
	one, at := first(t)
	cl := one.dial()
	must(cl.Put(testContext(t), "k", "x"))(t)
	steps := []string{"recover-asked", "recover-restarted", "recover-authority", "recover-exchange", "recover-tokens", "recover-etcd", "recover-record"}
	for i, step := range steps {
		began := time.Now()
		name := fmt.Sprint("other", i)
		other := joins(t, one, at, name, one.token())
		other.killHost()
		var look hosts.Recovery
		eventually(t, "the majority is lost", func() bool {
			code, _ := one.hosts(&look, "recover", "--dry-run")
			return code == 0
		})
		dies.at(step)
		code, out := one.hosts(nil, "recover", "--yes")
		eventually(t, "a process dies at "+step, func() bool { return dies.reached(step) })
		if i%2 == 1 {
			one.killHost()
			one.up()
		}
		one.everyone()
		eventually(t, fmt.Sprintf("the repeated command succeeds after %s (%d %s)", step, code, out), func() bool {
			var done hosts.Recovery
			code, _ := one.hosts(&done, "recover", "--yes")
			one.everyone()
			one.engines()
			return code == 0 && done.NewCluster != "" && done.NewCluster != look.Cluster
		})
		one.serves(cl)
		if got := must(cl.Get(testContext(t), "k"))(t); got.Count != 1 {
			t.Fatalf("killed at %s: the key is lost", step)
		}
		t.Logf("%s: %s", step, time.Since(began).Round(time.Millisecond))
	}
}
