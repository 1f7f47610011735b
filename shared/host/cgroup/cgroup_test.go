package cgroup

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dynast-io/dynast/shared/prove/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// group creates a group, or skips the test.
func group(t *testing.T) *Group {
	t.Helper()
	p, err := Find()
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	g, err := p.Create("test-" + strconv.Itoa(os.Getpid()) + "-" + t.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := errors.Join(g.Kill(), g.WaitEmpty(ctx), g.Remove()); err != nil {
			t.Error(err)
		}
	})
	return g
}

// start starts a shell script in the group.
func start(t *testing.T, g *Group, script string) *exec.Cmd {
	t.Helper()
	dir, err := g.OpenDir()
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func TestKillEndsAllProcesses(t *testing.T) {
	g := group(t)
	if populated, err := g.Populated(); err != nil || populated {
		t.Errorf("a new group: %v, %v", populated, err)
	}
	ready := filepath.Join(t.TempDir(), "ready")
	// A grandchild that is no longer below the program, and one in a group of its own.
	cmd := start(t, g, `trap "" TERM HUP; (sleep 1000 </dev/null >/dev/null 2>&1 &) ; mkdir '`+g.Path()+`'/sub; (
		echo 0 >'`+g.Path()+`'/sub/cgroup.procs; touch '`+ready+`'; sleep 1000; :); :`)
	testkit.Eventually(t, "three processes", func() bool {
		_, err := os.Stat(ready)
		pids, e := g.Procs()
		return err == nil && e == nil && len(pids) >= 4
	})
	pids, _ := g.Procs()
	if !slices.Contains(pids, cmd.Process.Pid) || slices.Contains(pids, os.Getpid()) {
		t.Errorf("pids %v, want %d among them", pids, cmd.Process.Pid)
	}
	if populated, err := g.Populated(); err != nil || !populated {
		t.Errorf("populated: %v, %v", populated, err)
	}
	if err := g.Remove(); err == nil {
		t.Error("a group with processes was removed")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := g.WaitEmpty(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("wait for a group with processes: %v", err)
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := g.WaitEmpty(ctx); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
}

// All is well with a group that somebody else has removed.
func TestRemovedGroup(t *testing.T) {
	g := At(filepath.Join(t.TempDir(), "missing"))
	if err := errors.Join(g.Kill(), g.WaitEmpty(t.Context()), g.Remove()); err != nil {
		t.Error(err)
	}
	if pids, err := g.Procs(); err != nil || len(pids) != 0 {
		t.Errorf("%v, %v", pids, err)
	}
	if populated, err := g.Populated(); err != nil || populated {
		t.Errorf("%v, %v", populated, err)
	}
}

// The files get the kernel's formats, and what is not enabled is an error only if it is wanted.
func TestLimit(t *testing.T) {
	g := &Group{dir: t.TempDir(), limits: controllers}
	read := func() string {
		var all []string
		for _, name := range []string{"memory.max", "cpu.max", "pids.max", "memory.oom.group"} {
			raw, err := os.ReadFile(filepath.Join(g.dir, name))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, string(raw))
			if err := os.WriteFile(filepath.Join(g.dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return strings.Join(all, "|")
	}
	for _, name := range []string{"memory.max", "cpu.max", "pids.max", "memory.oom.group"} {
		if err := os.WriteFile(filepath.Join(g.dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range []struct {
		memory     uint64
		cpu, procs int
		want       string
	}{
		{1 << 20, 1500, 10, "1048576|150000 100000|10|1"},
		{1, 1, 1, "1|1000 100000|1|1"},
		{0, 0, 0, "max|max 100000|max|"},
	} {
		if err := g.Limit(x.memory, x.cpu, x.procs); err != nil {
			t.Error(err)
		}
		if got := read(); got != x.want {
			t.Errorf("got %q, want %q", got, x.want)
		}
	}
	g.limits, g.noLimit = []string{"pids"}, "no such controller"
	if err := g.Limit(0, 0, 5); err != nil {
		t.Error(err)
	}
	if err := g.Limit(1, 0, 6); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "no such controller") {
		t.Errorf("a limit without controller: %v", err)
	}
	if got := read(); got != "||6|" {
		t.Errorf("got %q", got)
	}
}

// With real controllers, the kernel accepts what Limit writes.
func TestLimitInKernel(t *testing.T) {
	g := group(t)
	if len(g.limits) < len(controllers) {
		t.Skip(g.noLimit)
	}
	if err := g.Limit(64<<20, 500, 20); err != nil {
		t.Error(err)
	}
	if err := g.Limit(0, 0, 0); err != nil {
		t.Error(err)
	}
}

func TestFindSaysWhyNot(t *testing.T) {
	const mount = "31 23 0:26 / /nowhere rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"
	for want, files := range map[string][2]string{
		"no control group of version 2": {"1:cpu:/\n", mount},
		"no mounted cgroup2":            {"0::/a\n", "31 23 0:26 / /proc rw - proc proc rw\n"},
		"shows the group /../x":         {"0::/../x\n", mount},
		"move processes out of":         {"0::/a/members\n", mount},
	} {
		self := t.TempDir()
		for i, name := range []string{"cgroup", "mountinfo"} {
			if err := os.WriteFile(filepath.Join(self, name), []byte(files[i]), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := find(self); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got: %v", want, err)
		}
	}
	if _, err := find(t.TempDir()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("without /proc: %v", err)
	}
}

func TestOwnDirectory(t *testing.T) {
	for _, x := range []struct{ cgroup, mount, want string }{
		{"0::/a/b\n", "31 23 0:26 / /sys/fs/cgroup rw - cgroup2 c rw\n", "/sys/fs/cgroup/a/b"},
		{"3:cpu:/x\n0::/a/b\n", "31 23 0:26 /a /mnt rw shared:9 master:1 - cgroup2 c rw\n", "/mnt/b"},
		{"0::/\n", "31 23 0:26 / /sys/fs/cgroup rw - cgroup2 c rw\n", "/sys/fs/cgroup"},
	} {
		self := t.TempDir()
		if err := errors.Join(os.WriteFile(filepath.Join(self, "cgroup"), []byte(x.cgroup), 0o600),
			os.WriteFile(filepath.Join(self, "mountinfo"), []byte(x.mount), 0o600)); err != nil {
			t.Fatal(err)
		}
		dir, root, err := ownDirectory(self)
		if err != nil || dir != x.want || root != (x.cgroup == "0::/\n") {
			t.Errorf("%q: %q, %v, %v", x.cgroup, dir, root, err)
		}
	}
}

func TestCreateRefusesNames(t *testing.T) {
	p := &Parent{dir: t.TempDir()}
	for _, name := range []string{"", ".", "..", "a/b", "/a", ".hidden", membersName} {
		if g, err := p.Create(name); err == nil {
			t.Errorf("%q: created %s", name, g.Path())
		}
	}
	for range 2 {
		if g, err := p.Create("web-1"); err != nil || g.Path() != filepath.Join(p.dir, "web-1") {
			t.Errorf("%v, %v", g, err)
		}
	}
}
