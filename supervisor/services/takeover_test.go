package services

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member"
	rules "github.com/dynast-io/dynast/shared/rules/services"
	"github.com/dynast-io/dynast/supervisor/process"
)

// The programs of these tests are children of the test, so it reaps them, as PID 1 does when their
// leader is dead.
func reap(t *testing.T, pid int) {
	t.Helper()
	for {
		_, err := unix.Wait4(pid, nil, 0, nil)
		if err == nil {
			return
		}
		if err != unix.EINTR {
			t.Fatalf("wait for %d: %v", pid, err)
		}
	}
}

// exitsAreTold skips a test on kernels that do not tell how a process ended that was reaped.
func exitsAreTold(t *testing.T) {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor); err != nil || major < 6 || major == 6 && minor < 15 {
		t.Skip("the kernel is older than 6.15")
	}
}

// A program ends and is reaped while no leader is there. The next leader knows how it ended, unless
// all members were dead.
func TestExitWithoutALeader(t *testing.T) {
	exitsAreTold(t)
	fifo := filepath.Join(t.TempDir(), "code")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	codes, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer codes.Close()
	r := newRig(t, fmt.Sprintf("service \"p\" {\n script = \"read code < %s; exit $code\"\n backoff {\n first = \"1ms\"\n max = \"1ms\"\n limit = 0\n }\n}", fifo))
	r.lead()
	pid := r.await("p/1", 0).PID
	for _, c := range []struct {
		name    string
		told    int // the exit status of the program
		code    int // what ps says
		signal  string
		allDead bool
	}{
		{name: "status", told: 37, code: 37},
		{name: "signal", code: -1, signal: "SIGKILL"},
		{name: "success", code: 0},
		{name: "all members dead", told: 36, code: -1, allDead: true},
		{name: "status again", told: 38, code: 38},
	} {
		r.release()
		if c.signal != "" {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
		} else if _, err := fmt.Fprintln(codes, c.told); err != nil {
			t.Fatal(err)
		}
		reap(t, pid)
		if c.allDead {
			r.shareNothing()
		}
		r.lead()
		i := r.await("p/1", pid)
		if i.LastExit == nil || i.LastExit.Code != c.code || i.LastExit.Signal != c.signal {
			t.Errorf("%s: ps says %+v", c.name, i.LastExit)
		}
		pid = i.PID
	}
}

// A program that runs on is adopted, and is not started again. Its end is reported by the new
// leader.
func TestAdoptsWhatRuns(t *testing.T) {
	r := newRig(t, `service "p" { command = ["/bin/sleep", "1000"] }`)
	r.lead()
	pid := r.await("p/1", 0).PID
	for _, allDead := range []bool{false, true} {
		r.release()
		if allDead {
			r.shareNothing()
		}
		r.lead()
		if i := r.await("p/1", 0); i.PID != pid || i.Restarts != 0 || i.LastExit != nil {
			t.Errorf("all dead %t: %+v, want pid %d", allDead, i, pid)
		}
	}
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if i := r.await("p/1", pid); i.LastExit == nil || i.LastExit.Signal != "SIGTERM" {
		t.Errorf("ps says %+v", i.LastExit)
	}
}

// The leader died after it had started a process, and before it had saved the pid.
func TestStartThatWasNotFinished(t *testing.T) {
	for _, c := range []struct {
		name                string
		lock, token, stored bool
		dead                bool
	}{
		{name: "it has the lock", lock: true},
		{name: "it has closed the lock", token: true},
		{name: "it is in the store", stored: true, lock: true},
		{name: "it is in the store and dead", stored: true, lock: true, dead: true},
		{name: "there was none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.dead {
				exitsAreTold(t)
			}
			r := newRig(t, `service "p" { command = ["/bin/sleep", "1000"] }`)
			id := rules.ID{Service: "p", N: 1}
			f := files{r.host.Dir.Services()}
			s := stored{BootID: r.host.BootID, Token: newToken(), Service: r.host.Configured[0],
				Record: rules.Record{ID: id, Phase: rules.Starting, Run: 5, Fingerprint: fingerprint(r.host.Configured[0])}}
			if err := f.writeDesired(desired{BootID: r.host.BootID, Configured: r.host.Configured}); err != nil {
				t.Fatal(err)
			}
			if _, err := f.writeRecord(s, 0); err != nil {
				t.Fatal(err)
			}
			pid := 0
			if c.lock || c.token {
				program := process.Program{Path: "/bin/sleep", Argv: []string{"sleep", "1000"}}
				if c.token {
					program.Env = []string{tokenVariable + "=" + s.Token}
				}
				if c.lock {
					lock, err := proc.TakeInstanceLock(f.lock(id))
					if err != nil {
						t.Fatal(err)
					}
					defer lock.Close()
					program.Lock = lock
				}
				p, err := process.StartProgram(program)
				if err != nil {
					t.Fatal(err)
				}
				if program.Lock != nil {
					program.Lock.Close() // the leader is dead
				}
				pid = p.Identity().PID
				if c.stored {
					socket, err := proc.NewStoreSocket()
					if err != nil {
						t.Fatal(err)
					}
					store, _, err := proc.OpenStore(socket, func(proc.Identity, proc.Tag) bool { return true })
					if err != nil {
						t.Fatal(err)
					}
					if err := store.Add(p, tagOf(s.Token)); err != nil {
						t.Fatal(err)
					}
					if err := r.host.Sockets.Add(member.Listener{Name: member.ProcessStore, File: socket}); err != nil {
						t.Fatal(err)
					}
				}
				if c.dead {
					if err := p.Kill(); err != nil {
						t.Fatal(err)
					}
					reap(t, pid)
				}
				p.Close()
			}
			r.lead()
			if c.dead {
				if i := r.await("p/1", pid); i.Restarts != 1 || i.LastExit == nil || i.LastExit.Signal != "SIGKILL" {
					t.Errorf("%+v, last exit %+v", i, i.LastExit)
				}
				return
			}
			if i := r.await("p/1", 0); pid != 0 && i.PID != pid || i.Restarts != 0 || i.LastExit != nil {
				t.Errorf("%+v, want pid %d", i, pid)
			}
		})
	}
}

// When all members are dead, a listening socket is only in the programs. The next leader takes it
// from them.
func TestSocketIsTakenFromTheProgram(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to take a descriptor from another process")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, fmt.Sprintf("service \"p\" {\n command = [\"/bin/sleep\", \"1000\"]\n listen \"http\" { address = %q }\n}", address))
	r.lead()
	pid := r.await("p/1", 0).PID
	inode := func() uint64 {
		t.Helper()
		f := r.host.Sockets.File(member.ServiceListener("p", "http"))
		if f == nil {
			t.Fatal("there is no socket")
		}
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		return info.Sys().(*syscall.Stat_t).Ino
	}
	before := inode()
	r.release()
	r.shareNothing()
	c, err := net.Dial("tcp", address) // it waits in the queue of the socket
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r.lead()
	if i := r.await("p/1", 0); i.PID != pid {
		t.Errorf("the program was restarted: pid %d, then %d", pid, i.PID)
	}
	if after := inode(); after != before {
		t.Errorf("the socket is inode %d, it was %d", after, before)
	}
}
