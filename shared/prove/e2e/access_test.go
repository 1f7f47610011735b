package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member/pki"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/observe/tree"
)

const nobody = 65534 // uid and gid

// open creates a directory that every user may enter, and lets every user run the program under
// test.
func open(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to become another user")
	}
	dir, err := os.MkdirTemp("", "dynast-e2e-open-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, d := range []string{dir, filepath.Dir(binary)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// as runs the program as another user.
func as(t *testing.T, uid uint32, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func TestAnotherUserMayReadButNotChange(t *testing.T) {
	c := start(t, withDataDir(filepath.Join(open(t), "data")))
	before := c.full()
	if code, out, errs := as(t, nobody, "tree", "--data-dir", c.dir); code != 4 || !strings.Contains(errs, "chmod g+rx") {
		t.Errorf("tree, without access to the data directory: exit code %d, want 4 and a message with \"chmod g+rx\"\n%s%s", code, out, errs)
	}
	if err := os.Chmod(c.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 { // once for each of two leaders
		code, out, errs := as(t, nobody, "tree", "--json", "--data-dir", c.dir)
		seen, err := tree.Decode([]byte(out))
		if code != 0 || err != nil || len(seen.Members) != 3 || leaderOf(seen).RSSBytes == 0 {
			t.Fatalf("tree: exit code %d, %v\n%s%s", code, err, out, errs)
		}
		code, out, _ = as(t, nobody, "tree", "--data-dir", c.dir)
		if code != 0 || !strings.Contains(out, leaderOf(before).Address) {
			t.Errorf("tree: exit code %d\n%s", code, out)
		}
		c.signal(leaderOf(seen), syscall.SIGKILL)
		c.full()
	}
	before = c.full()
	refusals := map[string][]string{
		"stop": {"stop", "--data-dir", c.dir},
		"join": {"join", "--leader", before.Leader, "--data-dir", c.dir},
		"up":   {"up", "--data-dir", c.dir, "--client-listen", fmt.Sprintf("127.0.0.1:%d", freePort(t))},
	}
	for _, slots := range []os.FileMode{0o700, 0o755} { // the command can read the slots, or only the leader can
		if err := os.Chmod(filepath.Join(c.dir, "slots"), slots); err != nil {
			t.Fatal(err)
		}
		for name, args := range refusals {
			code, out, errs := as(t, nobody, args...)
			if code == 0 || !strings.Contains(errs, "uid 0") {
				t.Errorf("%s: exit code %d, want a refusal that names the owner\n%s%s", name, code, out, errs)
			}
			t.Logf("%s: %s", name, strings.TrimSpace(errs))
		}
	}
	sameProcesses(t, before, c.full())
}

func TestJoinRefusals(t *testing.T) {
	c := start(t)
	before := c.full()
	follower := followersOf(before)[0].Address
	expect := func(wantCode int, want []string, args ...string) {
		t.Helper()
		code, out := c.run(append([]string{"join"}, args...)...)
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("the output of join %v does not contain %q:\n%s", args, w, out)
			}
		}
		if code != wantCode {
			t.Errorf("join %v: exit code %d, want %d\n%s", args, code, wantCode, out)
		}
	}
	expect(4, []string{follower, before.Leader}, "--config", c.config, "--leader", follower)
	expect(1, []string{follower, "in use by", fmt.Sprint(followersOf(before)[0].PID)}, "--config", c.config, "--leader", before.Leader, "--address", follower)
	expect(4, []string{"data directory"}, "--data-dir", filepath.Join(t.TempDir(), "none"), "--leader", before.Leader)
	expect(2, []string{"--leader"}, "--config", c.config)
	expect(2, []string{"nonsense"}, "--config", c.config, "--leader", "nonsense")
	sameProcesses(t, before, c.full())
	c.killAll()
	expect(4, []string{"no leader", c.dir}, "--config", c.config, "--leader", before.Leader)
}

// handoff sends one request to the leader's hand-off socket.
func (c *cluster) handoff(req *wire.HandoffRequest) *wire.HandoffResponse {
	c.t.Helper()
	conn, err := c.openDir().DialHandoff(testContext(c.t))
	if err != nil {
		c.t.Fatal(err)
	}
	defer conn.Close()
	raw, err := proto.Marshal(req)
	if err == nil {
		err = proc.SendFiles(conn, raw)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	raw, files, err := proc.ReceiveFiles(conn, 1<<20)
	for _, f := range files {
		f.Close()
	}
	var resp wire.HandoffResponse
	if err == nil {
		err = proto.Unmarshal(raw, &resp)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return &resp
}

// stranger returns the description that a process on another host would send about itself.
func stranger(c *cluster) *wire.MemberInfo {
	self := proc.Self()
	return &wire.MemberInfo{Address: fmt.Sprintf("%s:%d", c.host, c.first+39), Pid: int64(self.PID), StartTime: self.StartTime, Slot: 9, State: 2}
}

func TestMembersOfOtherHostsAndClustersAreRefused(t *testing.T) {
	c := start(t)
	before := c.full()
	resp := c.handoff(&wire.HandoffRequest{Member: stranger(c), BootId: "another-host"})
	for _, want := range []string{"another host", "loopback", "member.host"} {
		if !strings.Contains(resp.Error, want) {
			t.Errorf("the refusal does not say %q: %s", want, resp.Error)
		}
	}
	authority, err := pki.Load(c.openDir().PKI())
	if err != nil {
		t.Fatal(err)
	}
	clusterID, err := c.openDir().ClusterID()
	if err != nil {
		t.Fatal(err)
	}
	boot, err := proc.BootID()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///"+before.Leader, grpc.WithTransportCredentials(credentials.NewTLS(authority.ClientTLS())))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for name, tc := range map[string]struct {
		hello *wire.Hello
		want  codes.Code
	}{
		"another host":    {&wire.Hello{Member: stranger(c), ClusterId: clusterID, BootId: "another-host"}, codes.FailedPrecondition},
		"another cluster": {&wire.Hello{Member: stranger(c), ClusterId: clusterID + 1, BootId: boot}, codes.PermissionDenied},
		"no member":       {&wire.Hello{ClusterId: clusterID, BootId: boot}, codes.InvalidArgument},
		"no hello":        {nil, codes.InvalidArgument},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		stream, err := wire.NewMemberClient(conn).Follow(ctx)
		if err == nil {
			err = stream.Send(&wire.FollowerMessage{Body: &wire.FollowerMessage_Hello{Hello: tc.hello}})
		}
		if err == nil {
			_, err = stream.Recv()
		}
		cancel()
		if status.Code(err) != tc.want {
			t.Errorf("hello with %s: error %v, want code %s", name, err, tc.want)
		}
	}
	sameProcesses(t, before, c.full())
}

// TestStrangersDoNoHarm sends random bytes, silence and wrong certificates to every port and
// socket of a cluster.
func TestStrangersDoNoHarm(t *testing.T) {
	_, rng := seeded(t)
	c := start(t)
	rec := record(t, c, 2)
	before := c.full()
	other, err := pki.LoadOrCreate(t.TempDir(), "another cluster")
	if err != nil {
		t.Fatal(err)
	}
	targets := []string{c.client}
	for _, m := range before.Members {
		targets = append(targets, m.Address)
	}
	var silent []net.Conn
	for _, target := range targets {
		for range 20 {
			conn, err := net.Dial("tcp", target)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			silent = append(silent, conn)
		}
		for _, n := range []int{1, 100, 100_000} {
			noise := make([]byte, n)
			for i := range noise {
				noise[i] = byte(rng.Uint32())
			}
			babble(t, "tcp", target, noise)
		}
		babble(t, "tcp", target, []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x04\x00\x00\x00\x00\x00"))
	}
	for _, socket := range []string{"admin.sock", "handoff.sock"} {
		path := filepath.Join(c.dir, socket)
		if len(path) > 107 {
			continue // the kernel's limit for the length of a socket path
		}
		babble(t, "unix", path, []byte{0xff, 0xff, 0xff, 0xff, 1, 2, 3})
		babble(t, "unix", path, make([]byte, 100_000))
	}
	for _, m := range before.Members {
		conn, err := grpc.NewClient("passthrough:///"+m.Address, grpc.WithTransportCredentials(credentials.NewTLS(other.ClientTLS())))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		stream, err := wire.NewMemberClient(conn).Follow(ctx)
		if err == nil {
			_, err = stream.Recv()
		}
		if err == nil {
			t.Errorf("member %s accepted a stream from a member of another cluster", m.Address)
		}
		cancel()
		conn.Close()
	}
	rec.more(t, 50)
	sameProcesses(t, before, c.full())
	// The connections that are still open do not delay a takeover.
	c.signal(leaderOf(before), syscall.SIGKILL)
	c.wait("another member leads", func(t *tree.Tree) bool { return t.Leader != before.Leader })
	rec.more(t, 50)
	c.full()
	rec.check(t, c)
	if len(silent) == 0 {
		t.Error("no silent connection was opened: the test checked nothing")
	}
}

// babble sends bytes and reads until the other side closes the connection.
func babble(t *testing.T, network, target string, noise []byte) {
	t.Helper()
	conn, err := net.Dial(network, target)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(200 * time.Millisecond)) // the other side may also wait for more
	_, _ = conn.Write(noise)
	_, _ = conn.Read(make([]byte, 4096))
}
