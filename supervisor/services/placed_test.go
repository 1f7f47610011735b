package services

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/shared/observe/ps"
	"github.com/dynast-io/dynast/shared/prove/testkit"
	"github.com/dynast-io/dynast/shared/rules/placement"
	rules "github.com/dynast-io/dynast/shared/rules/services"
)

// fakeStore answers as an engine does. Leases in it do not end by themselves.
type fakeStore struct {
	mu       sync.Mutex
	silent   bool
	revision int64
	owner    string // a host, or empty
	lease    int64
	released []int64
}

func (s *fakeStore) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *fakeStore) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.silent {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	var in struct{ Lease, Fence int64 }
	_ = json.NewDecoder(r.Body).Decode(&in)
	var out any
	switch r.URL.Path {
	case hosts.PathHold:
		switch s.owner {
		case "":
			s.revision++
			s.owner, s.lease = "here", s.revision
			out = hosts.HoldResponse{Lease: s.lease, Fence: s.revision, Owner: s.owner}
		case "here":
			out = hosts.HoldResponse{Owner: s.owner, Mine: s.lease}
		default:
			out = hosts.HoldResponse{Owner: s.owner}
		}
	case hosts.PathRenew:
		out = hosts.RenewResponse{Renewed: s.owner == "here" && s.lease == in.Lease && s.lease == in.Fence}
	case hosts.PathRelease:
		s.released = append(s.released, in.Lease)
		if s.lease == in.Lease {
			s.owner, s.lease = "", 0
		}
		out = struct{}{}
	}
	_ = json.NewEncoder(w).Encode(out)
}

// newPlacedRig makes one of several hosts. Its engine is a fake.
func newPlacedRig(t *testing.T, hcl string) (*rig, *fakeStore) {
	t.Helper()
	r := newRig(t, hcl)
	if err := r.host.Dir.WriteHost(datadir.Host{Cluster: "c", Name: "here", Address: "127.0.0.1:1", Members: map[string]string{"here": "127.0.0.1:1"}}); err != nil {
		t.Fatal(err)
	}
	r.host.Builtin = func() []config.Service {
		s := config.NewService()
		s.Name, s.Command, s.Dir = member.EngineService, []string{"sleep", "1000"}, "/"
		return []config.Service{s}
	}
	l, err := r.host.Dir.ListenEngine()
	if err != nil {
		t.Fatal(err)
	}
	store := &fakeStore{}
	server := &http.Server{Handler: store}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { // before the rig's, which has to give ownerships back
		store.set(func() { store.silent = false })
		if r.now == nil {
			r.lead()
		}
		if err := r.now.StopPlaced(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
		_ = server.Close()
		<-done
	})
	return r, store
}

func (r *rig) service(name string) ps.Service {
	r.t.Helper()
	raw, err := r.now.Report(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	report, err := ps.Decode(raw)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, s := range report.Services {
		if s.Name == name {
			return s
		}
	}
	return ps.Service{}
}

// environment returns a variable of a process.
func environment(t *testing.T, pid int, name string) string {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		t.Fatal(err)
	}
	for kv := range strings.SplitSeq(string(raw), "\x00") {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	return ""
}

const solo = `
heartbeat {
  interval = "20ms"
  timeout  = "60ms"
}
service "solo" {
  %s
  hosts = "one"
  stop { timeout = "100ms" }
}
`

func TestOwnership(t *testing.T) {
	r, store := newPlacedRig(t, fmt.Sprintf(solo, `command = ["sleep", "1000"]`))
	store.owner = "there"
	r.lead()
	testkit.Eventually(t, "it is known where it runs", func() bool { return r.service("solo").Elsewhere == "it runs on there" })
	if len(r.service("solo").Instances) != 0 {
		t.Errorf("got %+v", r.service("solo"))
	}
	if _, err := r.now.Act(t.Context(), member.ServiceCommand{Action: member.ActionRestart, Names: []string{"solo"}}); err == nil || !strings.Contains(err.Error(), "it runs on there") {
		t.Errorf("got %v", err)
	}
	store.set(func() { store.owner, store.revision = "", 41 })
	i := r.await("solo/1", 0)
	if got := environment(t, i.PID, "FENCE") + environment(t, i.PID, "DYNAST_HOST"); got != "42here" {
		t.Errorf("got %q", got)
	}
	if s := r.service("solo"); s.Fence != 42 || s.Elsewhere != "" {
		t.Errorf("got %+v", s)
	}
	// Another leader goes on with the same ownership.
	r.release()
	r.lead()
	if j := r.await("solo/1", 0); j.PID != i.PID || r.service("solo").Fence != 42 {
		t.Errorf("got %+v, want %+v", j, i)
	}
	// Stopping gives it back when the program is gone.
	if _, err := r.now.Act(t.Context(), member.ServiceCommand{Action: member.ActionStop, Names: []string{"solo"}}); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "it was given back", func() bool {
		store.mu.Lock()
		defer store.mu.Unlock()
		return store.owner == ""
	})
	if alive(rules.Process{PID: i.PID, StartTime: startTime(i.PID)}) {
		t.Error("it was given back although the program lives")
	}
	// Starting asks for it again.
	if _, err := r.now.Act(t.Context(), member.ServiceCommand{Action: member.ActionStart, Names: []string{"solo"}}); err != nil {
		t.Fatal(err)
	}
	r.await("solo/1", i.PID)
	// A lost answer: the store says that this host has it already. That ownership is not used.
	r.release()
	if err := os.Remove(filepath.Join(r.host.Dir.Services(), "solo", "owner.json")); err != nil {
		t.Fatal(err)
	}
	store.set(func() { store.released = nil })
	r.lead()
	testkit.Eventually(t, "it runs with another fence", func() bool { return r.service("solo").Fence > 43 && r.instance("solo/1").State == "ready" })
	store.set(func() {
		if len(store.released) != 1 {
			t.Errorf("released %v", store.released)
		}
	})
}

// startTime returns the start time of a process, or 0 if it is gone.
func startTime(pid int) uint64 {
	id, err := proc.Identify(pid)
	if err != nil {
		return 0
	}
	return id.StartTime
}

// A host that hears nothing of the store stops the program, also one that does not want to end.
func TestOwnershipCannotBeRenewed(t *testing.T) {
	r, store := newPlacedRig(t, fmt.Sprintf(solo, `script = "trap '' TERM; while :; do sleep 1000 & wait; done"`))
	r.lead()
	i := r.await("solo/1", 0)
	identity := rules.Process{PID: i.PID, StartTime: startTime(i.PID)}
	store.set(func() { store.silent = true })
	testkit.Eventually(t, "it is killed", func() bool { return !alive(identity) })
	store.set(func() { store.silent = false })
	r.await("solo/1", i.PID)
	if s := r.service("solo"); s.Fence <= 1 {
		t.Errorf("got %+v", s)
	}
}

// The program is killed in time although the goroutine that decides hangs, as on a dead disk.
func TestOwnershipEndsOnADeadDisk(t *testing.T) {
	r, _ := newPlacedRig(t, fmt.Sprintf(solo, `command = ["sleep", "1000"]`))
	r.lead()
	i := r.await("solo/1", 0)
	identity := rules.Process{PID: i.PID, StartTime: startTime(i.PID)}
	hang := make(chan struct{})
	r.now.(*Manager).post(func() { <-hang })
	testkit.Eventually(t, "it is killed", func() bool { return !alive(identity) })
	close(hang)
	r.await("solo/1", i.PID)
}

// While all members were dead, the lease has ended, and the program lives. The next leader kills it at once.
func TestOwnershipEndedWithoutALeader(t *testing.T) {
	r, store := newPlacedRig(t, fmt.Sprintf(solo, `script = "trap '' TERM; while :; do sleep 1000 & wait; done"`))
	r.lead()
	i := r.await("solo/1", 0)
	identity := rules.Process{PID: i.PID, StartTime: startTime(i.PID)}
	r.release()
	path := filepath.Join(r.host.Dir.Services(), "solo", "owner.json")
	var saved storedPlacement
	if err := read(path, &saved); err != nil {
		t.Fatal(err)
	}
	saved.State.Sent -= time.Hour
	if err := write(path, saved); err != nil {
		t.Fatal(err)
	}
	store.set(func() { store.owner = "there" })
	if !alive(identity) {
		t.Fatal("the program is dead")
	}
	r.lead()
	testkit.Eventually(t, "it is killed", func() bool { return !alive(identity) })
	testkit.Eventually(t, "it is known where it runs", func() bool { return r.service("solo").Elsewhere == "it runs on there" })
}

// After the host has booted, its old ownership is given back, so that nobody waits for the lease.
func TestOwnershipOfAnotherBoot(t *testing.T) {
	r, store := newPlacedRig(t, fmt.Sprintf(solo, `command = ["sleep", "1000"]`))
	store.owner, store.lease, store.revision = "here", 5, 5
	state := storedPlacement{Schema: schema, BootID: "another", State: placement.State{Phase: placement.Held, Lease: 5, Fence: 5, Sent: 1, TTL: time.Hour}}
	if err := write(filepath.Join(r.host.Dir.Services(), "solo", "owner.json"), state); err != nil {
		t.Fatal(err)
	}
	r.lead()
	r.await("solo/1", 0)
	store.set(func() {
		if len(store.released) != 1 || store.released[0] != 5 {
			t.Errorf("released %v", store.released)
		}
	})
	if s := r.service("solo"); s.Fence != 6 {
		t.Errorf("got %+v", s)
	}
}

// An ownership that is lost at once, because somebody removed the key, ends the program at once.
func TestOwnershipIsTakenAway(t *testing.T) {
	r, store := newPlacedRig(t, fmt.Sprintf(solo, `command = ["sleep", "1000"]`))
	r.lead()
	i := r.await("solo/1", 0)
	store.set(func() { store.owner = "there" })
	testkit.Eventually(t, "it is gone", func() bool { return r.service("solo").Elsewhere == "it runs on there" })
	if startTime(i.PID) != 0 && alive(rules.Process{PID: i.PID, StartTime: startTime(i.PID)}) {
		t.Error("the program lives")
	}
}

// A list of names is a fixed choice.
func TestListOfHosts(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "x")
	r, _ := newPlacedRig(t, fmt.Sprintf(`
service "mine" {
  command = ["sleep", "1000"]
  hosts   = ["there", "here"]
}
service "theirs" {
  command = ["sleep", "1000"]
  hosts   = ["there"]
  listen "x" { address = "unix:%s" }
}
`, socket))
	r.host.Sockets.Open(r.host.Configured, r.host.Dir.Services(), 0) // as at the start of a leader
	if _, err := os.Stat(socket); err != nil {
		t.Fatal(err)
	}
	r.lead()
	r.await("mine/1", 0)
	if s := r.service("theirs"); len(s.Instances) != 0 || s.Elsewhere != "this host (here) is not in its list of hosts" {
		t.Errorf("got %+v", s)
	}
	if _, err := os.Stat(socket); err == nil || r.host.Sockets.File(member.ServiceListener("theirs", "x")) != nil {
		t.Error("its socket is open")
	}
}

// A single host runs every service.
func TestPlacementOnASingleHost(t *testing.T) {
	r := newRig(t, fmt.Sprintf(solo, `command = ["sleep", "1000"]`)+"service \"listed\" {\n  command = [\"sleep\", \"1000\"]\n  hosts = [\"there\"]\n}\n")
	r.lead()
	r.await("listed/1", 0)
	i := r.await("solo/1", 0)
	if got := environment(t, i.PID, "FENCE"); got != "0" {
		t.Errorf("got FENCE=%s", got)
	}
}
