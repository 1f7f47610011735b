package supervisor

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	plugin "github.com/hashicorp/go-plugin"
	"go.uber.org/goleak"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

// fakeEnv tells this test program to act as a fake worker: the supervisor under test starts it
// in place of dynast.
const fakeEnv = "SUPERVISOR_TEST_WORKER"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "worker" {
		fakeWorker(os.Getenv(fakeEnv))
		return
	}
	goleak.VerifyTestMain(m)
}

func fakeWorker(mode string) {
	if code, err := strconv.Atoi(mode); err == nil {
		os.Exit(code)
	}
	switch mode {
	case "noise":
		fmt.Println("this is no handshake")
	case "serve":
		plugin.Serve(&plugin.ServeConfig{
			HandshakeConfig: member.Handshake,
			Plugins:         plugin.PluginSet{member.ControlPlugin: wire.ControlPlugin{Service: &fakeControl{}}},
			GRPCServer:      plugin.DefaultGRPCServer,
			Logger:          hclog.NewNullLogger(),
		})
	}
	<-time.After(time.Hour) // hangs, but for no longer than this if the test was killed
}

// fakeControl exits when it is retired. Introduce writes the leader to a file next to its
// socket.
type fakeControl struct {
	wire.UnimplementedControlServer
}

func (*fakeControl) Introduce(_ context.Context, r *wire.IntroduceRequest) (*wire.IntroduceResponse, error) {
	ros, err := wire.DecodeRoster(r.Roster)
	if err != nil {
		return nil, err
	}
	note := filepath.Join(os.Getenv(plugin.EnvUnixSocketDir), "introduced")
	return &wire.IntroduceResponse{}, os.WriteFile(note, []byte(ros.Leader.String()), 0o600)
}

func (*fakeControl) Retire(context.Context, *wire.RetireRequest) (*wire.RetireResponse, error) {
	go os.Exit(0)
	return &wire.RetireResponse{}, nil
}

// bench is a supervisor with fake workers.
type bench struct {
	*Supervisor
	t      *testing.T
	events chan core.Event

	mu     sync.Mutex
	roster *roster.Roster
}

const patience = 30 * time.Second

// newBench returns a supervisor whose workers act as mode says.
func newBench(t *testing.T, mode string) *bench {
	t.Helper()
	t.Setenv(fakeEnv, mode)
	defaults, err := os.ReadFile("../config.hcl")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load("", defaults)
	if err != nil {
		t.Fatal(err)
	}
	cfg.DataDir = t.TempDir()
	cfg.Member.Ports = config.PortRange{First: 24100, Last: 24139}
	dir, err := datadir.Open(cfg.DataDir, true)
	if err != nil {
		t.Fatal(err)
	}
	clients, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	file, err := clients.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, events: make(chan core.Event, 100), roster: &roster.Roster{Epoch: 1, Leader: address(24100)}}
	s, err := New(member.Host{
		Config: func() *config.Config { return cfg }, Dir: dir, Logger: hclog.NewNullLogger(), Version: "test", Sockets: member.NewSockets(member.Listeners{{Name: member.ClientListener, File: file}}),
		Roster: func() *roster.Roster { b.mu.Lock(); defer b.mu.Unlock(); return b.roster },
		Post:   func(e core.Event) { b.events <- e },
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Supervisor = s.(*Supervisor)
	t.Cleanup(func() { clients.Close(); file.Close() })
	return b
}

func address(port uint16) roster.Address {
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
}

func (b *bench) use(ports ...uint16) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.roster = &roster.Roster{Epoch: 1, Leader: address(24100)}
	for _, p := range ports {
		b.roster.Members = append(b.roster.Members, roster.Member{ID: roster.ID{Address: address(p), PID: int(p)}})
	}
}

// next returns the next event that the supervisor posts.
func (b *bench) next() core.Event {
	b.t.Helper()
	select {
	case e := <-b.events:
		return e
	case <-time.After(patience):
		b.t.Fatal("no event was posted")
		return nil
	}
}

func (b *bench) failed() core.SpawnFailed {
	b.t.Helper()
	f, ok := b.next().(core.SpawnFailed)
	if !ok {
		b.t.Fatalf("posted %#v, want SpawnFailed", f)
	}
	return f
}

// nothingLeft checks that no process and no socket is left.
func (b *bench) nothingLeft() {
	b.t.Helper()
	if pids := children(b.t); len(pids) > 0 {
		b.t.Errorf("processes are left: %v", pids)
	}
	b.await("the sockets' directory is empty", func() bool {
		left, err := os.ReadDir(b.socketDir)
		return err == nil && len(left) == 0
	})
}

func (b *bench) await(what string, ok func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			b.t.Fatalf("timed out waiting for: %s", what)
		}
		<-time.After(time.Millisecond) // the pace of asking
	}
}

// children returns the living child processes of this process.
func children(t *testing.T) []int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, path := range stats {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if u, err := proc.ReadUsage(pid); err == nil && u.PPID == os.Getpid() && u.State != 'Z' {
			pids = append(pids, pid)
		}
	}
	return pids
}

// A worker that never finishes the handshake is killed, and the failure counts.
func TestSpawnWithoutHandshakeIsKilled(t *testing.T) {
	for _, mode := range []string{"hang", "noise"} {
		b := newBench(t, mode)
		b.host.Config().Spawn.Timeout = 300 * time.Millisecond
		b.Spawn(2, "")
		if f := b.failed(); f.Slot != 2 || f.SlotBusy || f.Reason == "" || strings.Contains(f.Reason, "\n") {
			t.Errorf("%s: %+v", mode, f)
		}
		b.nothingLeft()
	}
}

// A start can be aborted before the process exists, while it starts, and when it hangs.
func TestAbortAtAnyMoment(t *testing.T) {
	b := newBench(t, "hang")
	for i := range 40 {
		b.Spawn(2, "")
		<-time.After(time.Duration(i%20) * 200 * time.Microsecond)
		b.Abort(2, "no longer wanted")
		if f := b.failed(); f.Slot != 2 || f.Reason != "no longer wanted" {
			t.Fatalf("abort %d: %+v", i, f)
		}
	}
	b.Abort(3, "never asked for")
	if f := b.failed(); f.Slot != 3 || f.Reason != "never asked for" {
		t.Errorf("%+v", f)
	}
	b.nothingLeft()
}

func TestEarlyExitIsReported(t *testing.T) {
	for code, want := range map[int]core.SpawnFailed{
		1:                   {Slot: 2, Reason: "the process ended with exit status 1 before its handshake; its log has the reason"},
		member.ExitSlotBusy: {Slot: 2, Reason: "the slot is owned by another process", SlotBusy: true},
	} {
		b := newBench(t, fmt.Sprint(code))
		b.Spawn(2, "")
		f := b.failed()
		f.At = time.Time{}
		if f != want {
			t.Errorf("exit code %d: %+v, want %+v", code, f, want)
		}
		b.nothingLeft()
	}
}

func (b *bench) spawned() roster.Member {
	b.t.Helper()
	e := b.next()
	s, ok := e.(core.Spawned)
	if !ok {
		b.t.Fatalf("posted %#v, want Spawned", e)
	}
	return s.Member
}

// A worker is adopted and retired by the leader that started it, and by the next one.
func TestAdoptAndRetire(t *testing.T) {
	b := newBench(t, "serve")
	b.Spawn(2, "")
	m := b.spawned()
	if m.Slot != 2 || m.Version != "test" || m.Plugin == "" {
		t.Fatalf("spawned %+v", m)
	}
	process, err := proc.Open(proc.Identity{PID: m.PID, StartTime: m.StartTime})
	if err != nil {
		t.Fatal(err)
	}
	defer process.Close()

	next := &bench{t: t, events: make(chan core.Event, 10), roster: &roster.Roster{Epoch: 2, Leader: address(24139), Members: []roster.Member{m}}}
	h := b.host
	h.Roster, h.Post = func() *roster.Roster { return next.roster }, func(e core.Event) { next.events <- e }
	s, err := New(h)
	if err != nil {
		t.Fatal(err)
	}
	next.Supervisor = s.(*Supervisor)
	next.Reattach(m)
	note := filepath.Join(filepath.Dir(m.Plugin), "introduced")
	b.await("the new leader is introduced", func() bool {
		raw, _ := os.ReadFile(note)
		return string(raw) == next.roster.Leader.String()
	})
	select {
	case <-process.Done():
		t.Fatal("the worker is dead after its adoption")
	default:
	}
	if err := os.Remove(note); err != nil {
		t.Fatal(err)
	}
	next.Retire(m.ID, "enough")
	<-process.Done()
	b.Release(m.ID)
	next.Release(m.ID)
	b.nothingLeft()
}

// block finds n consecutive free ports and returns the first.
func block(t *testing.T, n int) uint16 {
	t.Helper()
search:
	for first := 24200; first < 32000; first += n {
		for i := range n {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+i))
			if err != nil {
				continue search
			}
			l.Close()
		}
		return uint16(first)
	}
	t.Skip("no successive ports are free here")
	return 0
}

// bind takes the next free port above the highest in use and starts over after the last. It
// skips ports of other programs, and fails if all are in use.
func TestPorts(t *testing.T) {
	b := newBench(t, "hang")
	p := block(t, 5)
	b.host.Config().Member.Ports = config.PortRange{First: int(p), Last: int(p) + 4}
	for _, tc := range []struct {
		used []uint16
		want uint16
	}{
		{[]uint16{p}, p + 1},
		{[]uint16{p, p + 2}, p + 3},
		{[]uint16{p, p + 4}, p + 1},
		{[]uint16{p + 1, p + 4}, p},
		{[]uint16{p + 4, p, p + 1, p + 2}, p + 3},
	} {
		b.use(tc.used...)
		l, err := b.bind()
		if err != nil {
			t.Fatal(err)
		}
		got := l.Addr().(*net.TCPAddr).AddrPort().Port()
		if got != tc.want {
			t.Errorf("with %v in use: %d, want %d", tc.used, got, tc.want)
		}
		l.Close()
		b.unbind(got)
	}
	b.use(p)
	stranger, err := net.Listen("tcp", address(p+1).String())
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	var bound []uint16 // several starts at the same time
	for range 3 {
		l, err := b.bind()
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		bound = append(bound, l.Addr().(*net.TCPAddr).AddrPort().Port())
	}
	if want := []uint16{p + 2, p + 3, p + 4}; !slices.Equal(bound, want) {
		t.Errorf("bound %v, want %v", bound, want)
	}
	b.Spawn(5, "")
	if f := b.failed(); f.Slot != 5 || !strings.Contains(f.Reason, fmt.Sprint(p+1)) {
		t.Errorf("%+v", f)
	}
	b.use(p, p+1)
	b.Spawn(6, "")
	if f := b.failed(); f.Slot != 6 || !strings.Contains(f.Reason, "in use by members") {
		t.Errorf("%+v", f)
	}
}
