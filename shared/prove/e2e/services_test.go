package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/observe/ps"
	"github.com/dynast-io/dynast/shared/operator/cli"
	"github.com/dynast-io/dynast/shared/operator/term"
)

// withServices adds service blocks, and makes sure that no program outlives the test.
func withServices(t *testing.T, hcl string) option {
	return func(s *settings) {
		s.extra += hcl
		dir := s.dataDir
		t.Cleanup(func() { killServices(t, dir) })
	}
}

// killServices kills what is left of the programs of a data directory. They outlive dynast.
func killServices(t *testing.T, dir string) {
	records, err := filepath.Glob(filepath.Join(dir, "services", "*", "*", "lock"))
	if err != nil {
		t.Error(err)
	}
	for _, lock := range records {
		holders, err := proc.LockHolders(lock)
		if err != nil {
			t.Error(err)
		}
		for _, h := range holders {
			if err := proc.Signal(h.Identity, syscall.SIGKILL); err != nil {
				t.Error(err)
			}
		}
	}
}

// services returns the state of all services, as the leader reports it.
func (c *cluster) services() (*ps.Report, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var out bytes.Buffer
	if err := cli.PS(ctx, c.dir, nil, true, &out, term.Style{}); err != nil {
		return nil, err
	}
	return ps.Decode(out.Bytes())
}

// instance returns an instance, or an empty one if it does not exist.
func (c *cluster) instance(id string) ps.Instance {
	r, err := c.services()
	if err != nil {
		return ps.Instance{}
	}
	for _, i := range r.Find(id) {
		if i.ID == id {
			return i
		}
	}
	return ps.Instance{}
}

// awaitState waits until all of these instances have the state.
func (c *cluster) awaitState(state string, ids ...string) {
	c.t.Helper()
	for _, id := range ids {
		eventually(c.t, fmt.Sprintf("%s is %s", id, state), func() bool { return c.instance(id).State == state })
	}
}

// sleeper is a program that prints its pid and waits.
const sleeper = `script = "echo pid $$; exec sleep 1000"`

// processesOf counts the processes that hold the lock of an instance.
func (c *cluster) processesOf(id string) []int {
	holders, err := proc.LockHolders(filepath.Join(c.dir, "services", filepath.FromSlash(id), "lock"))
	if err != nil {
		c.t.Error(err)
	}
	var pids []int
	for _, h := range holders {
		if !h.CloseOnExec {
			pids = append(pids, h.PID)
		}
	}
	slices.Sort(pids)
	return pids
}

// TestServicesSurviveEveryDeath: programs continue to run when members of dynast die. When a
// program dies, the current leader restarts it.
func TestServicesSurviveEveryDeath(t *testing.T) {
	c := newCluster(t, withServices(t, fmt.Sprintf("service \"web\" {\n%s\ninstances = 3\n}\n", sleeper)))
	ids := []string{"web/1", "web/2", "web/3"}
	c.up()
	c.awaitState("ready", ids...)
	pids := map[string]int{}
	for _, id := range ids {
		pids[id] = c.instance(id).PID
	}
	unchanged := func(after string) {
		t.Helper()
		c.awaitState("ready", ids...)
		for _, id := range ids {
			if i := c.instance(id); i.PID != pids[id] || i.Restarts != 0 {
				t.Errorf("%s: %s has pid %d and %d restarts; its pid was %d", after, id, i.PID, i.Restarts, pids[id])
			}
			if have := c.processesOf(id); !slices.Equal(have, []int{pids[id]}) {
				t.Errorf("%s: %s has the processes %v, want %d", after, id, have, pids[id])
			}
		}
	}
	c.kill(leaderOf(c.full()))
	unchanged("after the death of the leader")
	c.order("promote")
	unchanged("after a hand-over")
	c.killAll()
	unchangedWhileDown := func() {
		for _, id := range ids {
			if have := c.processesOf(id); !slices.Equal(have, []int{pids[id]}) {
				t.Errorf("while all members are dead, %s has the processes %v", id, have)
			}
		}
	}
	unchangedWhileDown()
	c.up()
	unchanged("after all members were dead")

	// A program that died while no member was alive is started again. The others are not changed.
	c.killAll()
	if err := syscall.Kill(pids["web/2"], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.up()
	eventually(t, "web/2 runs again", func() bool {
		i := c.instance("web/2")
		return i.PID != pids["web/2"] && i.State == "ready"
	})
	for _, id := range []string{"web/1", "web/3"} {
		if i := c.instance(id); i.PID != pids[id] {
			t.Errorf("%s was restarted, although its process was alive", id)
		}
	}
	c.order("stop")
	for _, id := range ids {
		if have := c.processesOf(id); len(have) != 0 {
			t.Errorf("after stop, %s has the processes %v", id, have)
		}
	}
}

// TestStopKeepsServices: after stop --keep-services the programs continue to run, and the next
// "up" adopts them.
func TestStopKeepsServices(t *testing.T) {
	c := newCluster(t, withServices(t, "service \"web\" { "+sleeper+" }\n"))
	c.up()
	c.awaitState("ready", "web/1")
	pid := c.instance("web/1").PID
	c.order("stop", "--keep-services")
	if have := c.processesOf("web/1"); !slices.Equal(have, []int{pid}) {
		t.Fatalf("after stop --keep-services, web/1 has the processes %v, want %d", have, pid)
	}
	c.up()
	c.awaitState("ready", "web/1")
	if i := c.instance("web/1"); i.PID != pid || i.Restarts != 0 {
		t.Errorf("web/1 has pid %d and %d restarts, want pid %d and none", i.PID, i.Restarts, pid)
	}
}

// TestStopEndsTheWholeTree: a stop also ends the processes that a program started, including
// children that ignore SIGTERM and daemons with a session of their own.
func TestStopEndsTheWholeTree(t *testing.T) {
	dir := t.TempDir()
	script := fmt.Sprintf("trap '' TERM; setsid sh -c 'trap \\\"\\\" TERM; echo $$ > %[1]s/daemon; while :; do sleep 0.1; done' & while :; do sleep 0.1; done", dir)
	c := newCluster(t, withServices(t, fmt.Sprintf("service \"web\" {\nscript = %q\nstop { timeout = \"300ms\" }\n}\n", strings.ReplaceAll(script, `\"`, `"`))))
	c.up()
	c.awaitState("ready", "web/1")
	var daemon int
	eventually(t, "the daemon runs", func() bool {
		raw, err := os.ReadFile(filepath.Join(dir, "daemon"))
		if err == nil {
			daemon, err = strconv.Atoi(strings.TrimSpace(string(raw)))
		}
		return err == nil
	})
	id, err := proc.Identify(daemon)
	if err != nil {
		t.Fatal(err)
	}
	c.order("stop", "web")
	if now, err := proc.Identify(daemon); err == nil && now == id {
		t.Error("the daemon that the program started is still alive after the stop")
	}
	if have := c.processesOf("web/1"); len(have) != 0 {
		t.Errorf("processes of the service are left: %v", have)
	}
	c.awaitState("stopped", "web/1")
}

// TestServiceDependencies: a service starts when the services that it needs are ready, and stops
// before them.
func TestServiceDependencies(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "order")
	say := func(what string) string { return fmt.Sprintf("echo %s >> %s", what, log) }
	loop := "while :; do sleep 0.05; done"
	hcl := fmt.Sprintf(`
service "api" {
  script = %q
  needs  = ["db"]
  after  = ["migrate"]
}
service "db" {
  script = %q
  ready { exec = ["test", "-e", %q] }
}
service "migrate" {
  script  = %q
  needs   = ["db"]
  restart = "never"
}
`, "trap '"+say("api-down")+"; exit 0' TERM; "+say("api-up")+"; "+loop,
		"trap '"+say("db-down")+"; exit 0' TERM; "+say("db-up")+"; sleep 0.2; touch "+dir+"/ready; "+loop,
		dir+"/ready", say("migrate"))
	c := newCluster(t, withServices(t, hcl))
	c.up()
	c.awaitState("ready", "db/1", "api/1")
	c.awaitState("done", "migrate/1")
	eventually(t, "api handles SIGTERM", func() bool {
		raw, err := os.ReadFile(log)
		return err == nil && strings.Contains(string(raw), "api-up")
	})
	c.order("stop")
	raw, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Fields(string(raw)), []string{"db-up", "migrate", "api-up", "api-down", "db-down"}; !slices.Equal(got, want) {
		t.Errorf("the services started and stopped in the order %v, want %v", got, want)
	}
}

// TestServiceFails: dynast stops restarting a program that keeps failing, after its limit of
// restarts, and reports the reason. The store and the other services are not affected.
func TestServiceFails(t *testing.T) {
	c := newCluster(t, withServices(t, `
service "bad" {
  script = "exit 3"
  backoff {
    first = "10ms"
    limit = 4
  }
}
service "missing" {
  command = ["/no/such/program"]
  backoff {
    first = "10ms"
    limit = 2
  }
}
service "good" { `+sleeper+` }
`))
	c.up()
	c.awaitState("failed", "bad/1", "missing/1")
	c.awaitState("ready", "good/1")
	if i := c.instance("bad/1"); i.Restarts != 3 || !strings.Contains(i.Reason, "exit status 3") || i.LastExit == nil || i.LastExit.Code != 3 {
		t.Errorf("unexpected state of the failed instance: %+v", i)
	}
	if i := c.instance("missing/1"); !strings.Contains(i.Reason, "no such file") {
		t.Errorf("the reason is %q, want \"no such file\"", i.Reason)
	}
	if _, err := c.dial().Put(t.Context(), "a", "1"); err != nil {
		t.Errorf("a write while a service has failed: %v", err)
	}
	// When an operator starts the service again, the command reports that it failed again.
	if code, out := c.run("start", "bad", "--config", c.config); code == 0 || !strings.Contains(out, "not all instances run") {
		t.Errorf("start: exit code %d\n%s", code, out)
	}
	if code, out := c.run("start", "nonsense", "--config", c.config); code == 0 || !strings.Contains(out, `there is no service "nonsense"`) {
		t.Errorf("start: exit code %d\n%s", code, out)
	}

	// A leader that cannot read what shall run says so, serves the store, and goes on when the file is back.
	path := filepath.Join(c.dir, "services", "desired.json")
	good := must(os.ReadFile(path))(t)
	if err := os.WriteFile(path, good[:len(good)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	pid := c.instance("good/1").PID
	c.kill(leaderOf(c.full()))
	for _, args := range [][]string{{"ps"}, {"run", "--name", "more", "--", "sleep", "1"}} {
		eventually(t, "the next leader says that the file is damaged", func() bool {
			code, out := c.run(append([]string{args[0], "--config", c.config}, args[1:]...)...)
			return code != 0 && strings.Contains(out, "desired.json is damaged") && strings.Contains(out, "from a backup")
		})
	}
	put(t, c.dial(), "a", "2")
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	c.awaitState("ready", "good/1")
	if now := c.instance("good/1").PID; now != pid {
		t.Errorf("the service has pid %d, before %d", now, pid)
	}
}

// TestServiceSockets: a service's socket never refuses a connection while the service, the leader
// or a single instance is replaced.
func TestServiceSockets(t *testing.T) {
	address := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := newCluster(t, withServices(t, fmt.Sprintf(`
service "web" {
  command   = [%q]
  instances = 2
  env       = { %s = "serve" }
  listen "http" { address = %q }
  ready { notify = true }
}
`, self, serviceProcess, address)))
	c.up()
	c.awaitState("ready", "web/1", "web/2")
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			conn, err := net.DialTimeout("tcp", address, patience)
			if err != nil {
				done <- err
				return
			}
			_ = conn.Close()
			time.Sleep(time.Millisecond)
		}
	}()
	c.order("restart", "--rolling", "web")
	c.kill(leaderOf(c.full()))
	c.awaitState("ready", "web/1", "web/2")
	c.order("kill", "web")
	c.awaitState("ready", "web/1", "web/2")
	// Programs that outlive all members keep their socket, and the next leader takes it from them.
	c.killAll()
	c.up()
	c.awaitState("ready", "web/1", "web/2")
	c.order("restart", "web")
	c.awaitState("ready", "web/1", "web/2")
	close(stop)
	if err := <-done; err != nil {
		t.Errorf("a connection was refused: %v", err)
	}
}

// TestServicesReload: a reload restarts only the services whose processes have to change.
func TestServicesReload(t *testing.T) {
	blocks := func(b string) string {
		return "service \"a\" { " + sleeper + " }\nservice \"b\" {\n" + sleeper + "\n" + b + "\n}\n"
	}
	c := newCluster(t, withServices(t, blocks("")+"service \"c\" { "+sleeper+" }\n"))
	c.up()
	c.awaitState("ready", "a/1", "b/1", "c/1")
	before := map[string]int{"a/1": c.instance("a/1").PID, "b/1": c.instance("b/1").PID}
	raw, err := os.ReadFile(c.config)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(raw), blocks("")+"service \"c\" {", blocks("env = { X = \"1\" }")+"service \"d\" {", 1)
	if err := os.WriteFile(c.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := c.order("reload", "--dry-run"); !strings.Contains(out, "service restarted") || !strings.Contains(out, "nothing was changed") {
		t.Fatalf("reload --dry-run:\n%s", out)
	}
	if c.instance("d/1").State != "" || c.instance("b/1").PID != before["b/1"] {
		t.Error("the dry run changed something")
	}
	c.order("reload")
	c.awaitState("ready", "a/1", "b/1", "d/1")
	if c.instance("a/1").PID != before["a/1"] {
		t.Error("service a was restarted, although its block did not change")
	}
	if c.instance("b/1").PID == before["b/1"] {
		t.Error("service b was not restarted, although its block changed")
	}
	eventually(t, "c is gone", func() bool { return c.instance("c/1").ID == "" })
}

// TestRunAddsAService: a service that was added with "run" survives a takeover and can be
// removed.
func TestRunAddsAService(t *testing.T) {
	c := start(t, withServices(t, ""))
	if code, out := c.run("run", "--config", c.config, "--name", "extra", "--", "sleep", "1000"); code != 0 {
		t.Fatalf("run: exit code %d\n%s", code, out)
	}
	pid := c.instance("extra/1").PID
	c.kill(leaderOf(c.full()))
	c.awaitState("ready", "extra/1")
	if i := c.instance("extra/1"); i.PID != pid {
		t.Errorf("after the takeover the service has pid %d, want %d", i.PID, pid)
	}
	c.order("stop", "--remove", "extra")
	r, err := c.services()
	if err != nil || len(r.Services) != 0 {
		t.Errorf("the removed service is still listed: %+v, %v", r, err)
	}
	if have := c.processesOf("extra/1"); len(have) != 0 {
		t.Errorf("processes of the service are left: %v", have)
	}
}

// serviceProcess in the environment makes this test binary a program that a service runs.
const serviceProcess = "DYNAST_TEST_SERVICE"

// beService accepts connections on the first socket that it inherits, until it gets SIGTERM.
func beService() error {
	if os.Getenv(serviceProcess) == roleSpeaker {
		return beSpeaker()
	}
	file := os.NewFile(3, "http")
	l, err := net.FileListener(file)
	if err != nil {
		return err
	}
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	go func() {
		<-terminated
		_ = l.Close()
	}()
	notify, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		return err
	}
	if _, err := notify.Write([]byte("READY=1\nSTATUS=serving")); err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err == nil {
			_ = c.Close()
		}
	}
}
