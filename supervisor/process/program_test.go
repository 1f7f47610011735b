package process

import (
	"errors"
	"io/fs"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/launch"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/prove/testkit"
)

// shell returns a program that runs a script, and the file with its output.
func shell(t testing.TB, script string) (Program, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "output")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return Program{Path: "/bin/sh", Argv: []string{"sh", "-c", script}, Env: []string{"PATH=" + os.Getenv("PATH")}, Stdout: f}, path
}

// run starts a program and ends it with the test.
func run(t testing.TB, p Program) *proc.Process {
	t.Helper()
	process, err := StartProgram(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = process.Kill()
		<-process.Done()
		process.Exit()
		process.Close()
	})
	return process
}

// outputOf runs a program to its end and returns the words that it printed.
func outputOf(t *testing.T, p Program, path string) []string {
	t.Helper()
	process := run(t, p)
	<-process.Done()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if e, _ := process.Exit(); !e.Success() {
		t.Fatalf("%v, output %q", e, raw)
	}
	return strings.Fields(string(raw))
}

// Both ways to start a program have the same result.
func TestProgramRunsInItsOwnSession(t *testing.T) {
	umask := 0o027
	for name, change := range map[string]func(*Program){
		"direct":   func(*Program) {},
		"launcher": func(p *Program) { p.Umask = &umask; p.ListenPID = true },
	} {
		t.Run(name, func(t *testing.T) {
			p, path := shell(t, `echo $$ $(cut -d" " -f6 /proc/$$/stat) $0 $(pwd) $A $(readlink /proc/$$/fd/0) $(readlink /proc/$$/fd/1) $(readlink /proc/$$/fd/2)
				echo $(readlink /proc/$$/fd/3) $(readlink /proc/$$/fd/4) ${LISTEN_PID:-none}
				exec ls /proc/self/fd`)
			p.Argv = append(p.Argv, "name")
			p.Dir = t.TempDir()
			p.Env = append(p.Env, "A=1")
			_, socket := testkit.TCPFile(t)
			lock, err := proc.TakeInstanceLock(filepath.Join(t.TempDir(), "lock"))
			if err != nil {
				t.Fatal(err)
			}
			defer lock.Close()
			p.Extra, p.Lock = []*os.File{socket}, lock
			change(&p)
			got := outputOf(t, p, path)
			if len(got) != 17 {
				t.Fatalf("output %q", got)
			}
			pid := got[0]
			listen := "none"
			if p.ListenPID {
				listen = pid
			}
			want := []string{pid, pid, "name", p.Dir, "1", os.DevNull, path, path, got[8], lock.Name(), listen,
				"0", "1", "2", "3", "4", "5"} // 5 is the directory that ls has opened
			if strings.Join(got, " ") != strings.Join(want, " ") || !strings.HasPrefix(got[8], "socket:") {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
}

func TestProgramSettings(t *testing.T) {
	umask := 0o027
	p, path := shell(t, `umask; ulimit -n; ulimit -Hn; grep NoNewPrivs /proc/self/status`)
	p.Umask, p.NoNewPrivileges = &umask, true
	p.Limits = []launch.Limit{{Resource: unix.RLIMIT_NOFILE, Value: 123}}
	if got := strings.Join(outputOf(t, p, path), " "); got != "0027 123 123 NoNewPrivs: 1" {
		t.Errorf("got %q", got)
	}
}

func TestProgramDropsCapabilities(t *testing.T) {
	p, path := shell(t, `grep -E 'Cap(Prm|Eff|Bnd|Inh)' /proc/self/status`)
	p.NoNewPrivileges, p.DropCapabilities = true, []int{unix.CAP_NET_RAW, unix.CAP_CHECKPOINT_RESTORE}
	got := outputOf(t, p, path)
	for i := 1; i < len(got); i += 2 {
		set, err := strconv.ParseUint(got[i], 16, 64)
		if err != nil {
			t.Fatalf("%q: %v", got, err)
		}
		if os.Geteuid() != 0 && got[i-1] == "CapBnd:" {
			continue // only root may change it
		}
		if set&(1<<unix.CAP_NET_RAW|1<<unix.CAP_CHECKPOINT_RESTORE) != 0 {
			t.Errorf("%s %s", got[i-1], got[i])
		}
	}
}

func TestProgramOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can change the user")
	}
	for _, launcher := range []bool{false, true} {
		p, path := shell(t, `grep -E '^(Uid|Gid|Groups)' /proc/self/status`)
		p.Dir = "/"
		p.Credential = &syscall.Credential{Uid: 12345, Gid: 12346, Groups: []uint32{12347}}
		p.ListenPID = launcher
		got := strings.Join(outputOf(t, p, path), " ")
		if want := "Uid: 12345 12345 12345 12345 Gid: 12346 12346 12346 12346 Groups: 12347"; got != want {
			t.Errorf("launcher %v: got %q", launcher, got)
		}
	}
}

func TestLookupCredential(t *testing.T) {
	if c, err := LookupCredential("", ""); c != nil || err != nil {
		t.Errorf("nothing to change: %v, %v", c, err)
	}
	for _, x := range [][3]string{{"no-such-user", "", `unknown user "no-such-user"`}, {"", "no-such-group", `unknown group "no-such-group"`}, {"4000000000", "", "set its group"}} {
		if c, err := LookupCredential(x[0], x[1]); err == nil || !strings.Contains(err.Error(), x[2]) {
			t.Errorf("%q: %v, %v", x, c, err)
		}
	}
	u, err := user.Current()
	if err != nil {
		t.Skip(err)
	}
	for _, name := range []string{u.Username, u.Uid} {
		c, err := LookupCredential(name, "")
		if err != nil || (c == nil) != (os.Geteuid() != 0) || c != nil && (strconv.Itoa(int(c.Uid)) != u.Uid || strconv.Itoa(int(c.Gid)) != u.Gid) {
			t.Errorf("%q: %+v, %v", name, c, err)
		}
	}
	if c, err := LookupCredential("4000000000", "4000000001"); err != nil || c.Uid != 4000000000 || c.Gid != 4000000001 {
		t.Errorf("numbers: %+v, %v", c, err)
	}
}

// Nothing is ignored only because this process ignores it, as under nohup.
func TestProgramDoesNotInheritIgnoredSignals(t *testing.T) {
	signal.Ignore(syscall.SIGHUP)
	defer signal.Reset(syscall.SIGHUP)
	p, path := shell(t, `kill -HUP $$; echo ignored`)
	process := run(t, p)
	<-process.Done()
	if e, _ := process.Exit(); e.Signal != unix.SIGHUP {
		raw, _ := os.ReadFile(path)
		t.Errorf("%v, output %q", e, raw)
	}
}

func TestStartProgramExplainsFailures(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, x := range []struct {
		name string
		p    Program
		is   error
		text string
	}{
		{"missing", Program{Path: "/does/not/exist"}, fs.ErrNotExist, "/does/not/exist"},
		{"not in PATH", Program{Path: "does-not-exist", Env: []string{"PATH=/bin"}}, fs.ErrNotExist, "PATH"},
		{"empty", Program{}, nil, "empty"},
		{"mode", Program{Path: write("mode", "#!/bin/sh\n", 0o600)}, fs.ErrPermission, "chmod"},
		{"directory", Program{Path: dir}, fs.ErrPermission, "is a directory"},
		{"interpreter", Program{Path: write("interpreter", "#!/does/not/exist\n", 0o700)}, fs.ErrNotExist, "interpreter"},
		{"format", Program{Path: write("format", "text", 0o700)}, syscall.ENOEXEC, "#!"},
		{"working directory", Program{Path: "/bin/sh", Dir: filepath.Join(dir, "missing")}, fs.ErrNotExist, "directory"},
		{"file as directory", Program{Path: "/bin/sh", Dir: write("file", "", 0o600)}, syscall.ENOTDIR, "directory"},
	} {
		for _, listen := range []bool{false, true} {
			x.p.ListenPID = listen
			x.p.Argv = []string{"x"}
			process, err := StartProgram(x.p)
			if err == nil {
				process.Kill()
				<-process.Done()
				process.Exit()
				process.Close()
			}
			if err == nil || x.is != nil && !errors.Is(err, x.is) || !strings.Contains(err.Error(), x.text) {
				t.Errorf("%s, launcher %v: %v", x.name, listen, err)
			}
		}
	}
	// A failure of the launcher itself.
	_, err := StartProgram(Program{Path: "/bin/sh", Argv: []string{"sh"}, Limits: []launch.Limit{{Resource: 99, Value: 1}}})
	if !errors.Is(err, syscall.EINVAL) || !strings.Contains(err.Error(), "resource limit 99") {
		t.Errorf("a wrong limit: %v", err)
	}
}

// A relative path starts at the working directory of the program.
func TestProgramPathIsRelativeToDir(t *testing.T) {
	for _, find := range []string{"./tool", "tool"} {
		for _, listen := range []bool{false, true} {
			p, path := shell(t, "")
			p.Dir = t.TempDir()
			if err := os.WriteFile(filepath.Join(p.Dir, "tool"), []byte("#!/bin/sh\necho tool\n"), 0o700); err != nil {
				t.Fatal(err)
			}
			p.Path, p.ListenPID, p.Env = find, listen, []string{"PATH=/nonexistent::/bin"}
			if got := strings.Join(outputOf(t, p, path), " "); got != "tool" {
				t.Errorf("%s: %q", find, got)
			}
		}
	}
}

func benchmarkStart(b *testing.B, change func(*Program)) {
	for b.Loop() {
		p := Program{Path: "/bin/true", Argv: []string{"true"}}
		change(&p)
		process, err := StartProgram(p)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		<-process.Done()
		process.Exit()
		process.Close()
		b.StartTimer()
	}
}

func BenchmarkStartDirect(b *testing.B) { benchmarkStart(b, func(*Program) {}) }

func BenchmarkStartWithLauncher(b *testing.B) {
	benchmarkStart(b, func(p *Program) { p.ListenPID = true })
}
