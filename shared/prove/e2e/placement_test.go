package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/observe/tree"
)

// soloScript notes each start: the host, the fence and the pid. It also notes when an earlier process still
// lives. All hosts of the test are on this machine.
const soloScript = `while read host fence pid; do if grep -qs "State:.[^ZX]" /proc/$pid/status; then echo "overlap $pid $$" >>%[1]s.overlap; fi; done <%[1]s; ` +
	`echo "$${DYNAST_HOST:-none} $FENCE $$" >>%[1]s; exec sleep 1000`

// soloStart is one start of the program.
type soloStart struct {
	host  string
	fence int64
	id    proc.Identity
}

// soloHosts are three hosts with a service that runs on one of them.
type soloHosts struct {
	t     *testing.T
	file  string
	hosts map[string]*cluster
}

// starts returns all starts of the program.
func (s *soloHosts) starts() []soloStart {
	s.t.Helper()
	raw, err := os.ReadFile(s.file)
	if err != nil {
		s.t.Fatal(err)
	}
	if overlap, err := os.ReadFile(s.file + ".overlap"); err == nil {
		s.t.Fatalf("the program ran twice: %s\nall starts:\n%s", overlap, raw)
	}
	var out []soloStart
	for line := range strings.Lines(string(raw)) {
		var x soloStart
		if _, err := fmt.Sscan(line, &x.host, &x.fence, &x.id.PID); err != nil {
			s.t.Fatalf("%q: %v", line, err)
		}
		if id, err := proc.Identify(x.id.PID); err == nil {
			x.id = id
		}
		out = append(out, x)
	}
	return out
}

// running returns the start whose process lives, or false.
func (s *soloHosts) running() (soloStart, bool) {
	all := s.starts()
	k := slices.IndexFunc(all, func(x soloStart) bool { return x.id.StartTime != 0 && !zombie(x.id.PID) })
	if k < 0 {
		return soloStart{}, false
	}
	return all[k], true
}

// await waits until the program runs with a greater fence than before.
func (s *soloHosts) await(what string, before soloStart) soloStart {
	s.t.Helper()
	began := time.Now()
	var x soloStart
	eventually(s.t, what, func() (ok bool) {
		x, ok = s.running()
		return ok && x.fence > before.fence
	})
	s.t.Logf("%s: on %s with fence %d, after %v", what, x.host, x.fence, time.Since(began).Round(10*time.Millisecond))
	return x
}

// all returns the dynast processes of a host.
func (s *soloHosts) all(host string) []proc.Identity {
	out := s.hosts[host].everyone()
	if id := s.engine(host); id.PID != 0 && !slices.Contains(out, id) {
		out = append(out, id)
	}
	return out
}

// engine returns the engine of a host, or zero.
func (s *soloHosts) engine(host string) proc.Identity {
	pid := s.hosts[host].instance(member.EngineService + "/1").PID
	id, err := proc.Identify(pid)
	if pid == 0 || err != nil {
		return proc.Identity{}
	}
	s.hosts[host].note(id)
	return id
}

// others returns the names of the other hosts.
func (s *soloHosts) others(host string) []string {
	var out []string
	for name := range s.hosts {
		if name != host {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// sync waits until three hosts vote and answer.
func (s *soloHosts) sync() {
	s.t.Helper()
	for name, c := range s.hosts {
		eventually(s.t, name+" sees that all hosts vote", func() bool {
			s.all(name)
			code, out := c.run("hosts", "--config", c.config)
			return code == 0 && strings.Contains(out, "All 3 voting hosts answer")
		})
	}
}

func threeSoloHosts(t *testing.T) *soloHosts {
	t.Helper()
	s := &soloHosts{t: t, file: filepath.Join(t.TempDir(), "starts"), hosts: map[string]*cluster{}}
	if err := os.WriteFile(s.file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	block := fmt.Sprintf("service \"solo\" {\n  script = %s\n  hosts = \"one\"\n  stop { timeout = \"1s\" }\n}\n"+
		"service \"listed\" {\n  command = [\"sleep\", \"1000\"]\n  hosts = [\"b\", \"c\"]\n}\n", strconv.Quote(fmt.Sprintf(soloScript, s.file)))
	token := filepath.Join(t.TempDir(), "token")
	var first string
	for i, name := range []string{"a", "b", "c"} {
		address := fmt.Sprintf("127.0.0.%d:%d", i+2, freePort(t))
		hcl := block + fmt.Sprintf("hosts {\n  name    = %q\n  address = %q\n", name, address)
		if i > 0 {
			hcl += fmt.Sprintf("  join       = %q\n  token_file = %q\n", first, token)
		}
		c := newCluster(t, withFollowersOf(1), withServices(t, hcl+"}\n"))
		s.hosts[name] = c
		c.up()
		if i > 0 {
			continue
		}
		first = address
		before := s.await("a single host runs it", soloStart{fence: -1})
		if before.host != "none" || before.fence != 0 {
			t.Errorf("got %+v on a single host", before)
		}
		c.awaitState("ready", "listed/1")
		c.order("hosts", "init", "--address", address, "--name", name)
		s.await("the first host owns it", before)
		cmd := c.command("hosts", "token", "--config", c.config)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(token, out, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.sync()
	s.hosts["a"].enableRoot() // the ownerships do not depend on users
	return s
}

func withFollowersOf(n int) option { return func(s *settings) { s.followers = n } }

// TestServiceOnOneHost runs a service on one of three hosts. Whatever happens to that host, it runs again,
// with a greater fence, and never twice.
func TestServiceOnOneHost(t *testing.T) {
	if testing.Short() {
		t.Skip("-short skips this test, because it takes long")
	}
	s := threeSoloHosts(t)
	now, ok := s.running()
	if !ok {
		t.Fatal("it does not run")
	}
	for name, c := range s.hosts {
		eventually(t, "the report of "+name+" is right", func() bool {
			r, err := c.services()
			if err != nil {
				return false
			}
			here, listed := len(r.Find("solo/1")) == 1, len(r.Find("listed/1")) == 1
			elsewhere := ""
			for _, x := range r.Services {
				if x.Name == "solo" {
					elsewhere = x.Elsewhere
				}
			}
			return here == (name == now.host) && listed == (name != "a") && (here || elsewhere == "it runs on "+now.host)
		})
	}
	if code, out := s.hosts[s.others(now.host)[0]].run("restart", "solo", "--config", s.hosts[s.others(now.host)[0]].config); code == 0 || !strings.Contains(out, "it runs on "+now.host) {
		t.Errorf("restart on another host: %d, %s", code, out)
	}

	// A new leader of the host continues.
	before := s.hosts[now.host].full(1)
	s.hosts[now.host].signal(leaderOf(before), syscall.SIGKILL)
	s.hosts[now.host].wait("a takeover", func(tr *tree.Tree) bool { return tr.Epoch > before.Epoch })
	if after, ok := s.running(); !ok || after != now {
		t.Errorf("the death of the leader changed the program: got %+v, want %+v", after, now)
	}

	// An orderly stop of the host.
	was := now
	s.hosts[was.host].order("stop")
	now = s.await("the host was stopped", was)
	s.hosts[was.host].up()
	s.sync()

	// The death of everything on the host.
	was = now
	all := append(s.all(was.host), was.id)
	for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
		for _, id := range all {
			signalSame(id, sig)
		}
	}
	now = s.await("the host died", was)
	if now.host == was.host {
		t.Errorf("it runs on %s, which is dead", now.host)
	}
	s.hosts[was.host].up()
	s.sync()

	// The engine and the leader hang.
	was = now
	c := s.hosts[was.host]
	c.signal(leaderOf(c.full(1)), syscall.SIGSTOP)
	signalSame(s.engine(was.host), syscall.SIGSTOP)
	s.sync()
	eventually(t, "it runs after engine and leader hung", func() bool { _, ok := s.running(); return ok })
	now, _ = s.running()

	// No majority: the host stops it, and nobody else starts it.
	was = now
	var stopped []proc.Identity
	for _, name := range s.others(was.host) {
		stopped = append(stopped, s.all(name)...)
	}
	for _, id := range stopped {
		signalSame(id, syscall.SIGSTOP)
	}
	eventually(t, "it is stopped without a majority", func() bool { _, ok := s.running(); return !ok })
	for _, id := range stopped {
		signalSame(id, syscall.SIGCONT)
	}
	now = s.await("there is a majority again", was)

	// The operator moves it.
	was = now
	s.hosts[was.host].order("stop", "solo")
	now = s.await("it was stopped on one host", was)
	if now.host == was.host {
		t.Errorf("it still runs on %s", now.host)
	}
	s.hosts[was.host].order("start", "solo")

	// The supervision ends, and the engine goes on. Nobody would renew the ownership.
	was = now
	s.hosts[was.host].order("stop", "--keep-services")
	now = s.await("the host was stopped without its services", was)
	if now.host == was.host {
		t.Errorf("it runs on %s, where nobody supervises it", now.host)
	}
}
