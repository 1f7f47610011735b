package proc

import (
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

func TestExitOfAChild(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, x := range []struct {
		mode string
		kill unix.Signal
		want string
	}{
		{mode: "exit 0", want: "exit status 0"},
		{mode: "exit 3", want: "exit status 3"},
		{mode: "sleep", kill: unix.SIGKILL, want: "killed by SIGKILL"},
	} {
		child, err := Start(Executable(), []string{"child"}, append(os.Environ(), helperEnv+"="+x.mode), []*os.File{null, null, os.Stderr}, nil)
		if err != nil {
			t.Fatal(err)
		}
		p, err := OpenChild(child.Pid)
		if err != nil {
			t.Fatal(err)
		}
		if x.kill != 0 {
			if e, ended := p.Exit(); ended {
				t.Errorf("%s: a living process: %v", x.mode, e)
			}
			if err := p.Signal(x.kill); err != nil {
				t.Fatal(err)
			}
		}
		waitDone(t, p)
		for _, again := range []bool{false, true} {
			if e, ended := p.Exit(); !ended || e.String() != x.want || e.Success() != (x.mode == "exit 0") {
				t.Errorf("%s, again %v: %v, %v", x.mode, again, e, ended)
			}
		}
		if _, err := os.Stat("/proc/" + strconv.Itoa(child.Pid)); err == nil {
			t.Errorf("%s: it was not reaped", x.mode)
		}
		p.Close()
	}
}

// The status of a process whose parent died before it.
func TestExitOfAnotherProcessesChild(t *testing.T) {
	for want, end := range map[string]func(*helper, *Process){
		"exit status 0":     func(h *helper, _ *Process) { h.in.Close() },
		"killed by SIGKILL": func(_ *helper, p *Process) { p.Kill() },
	} {
		h := startHelper(t, "orphan")
		pid, err := strconv.Atoi(h.line(t))
		if err != nil {
			t.Fatal(err)
		}
		p := openPID(t, pid)
		if err := waitExited(h); err != nil {
			t.Fatal(err)
		}
		end(h, p)
		waitDone(t, p)
		e, ended := p.Exit()
		if !ended {
			t.Errorf("%s: not ended", want)
		}
		if !e.Known && !pidfdInfo(t) {
			t.Skip("the kernel is older than 6.15")
		}
		if e.String() != want {
			t.Errorf("got %v, want %s", e, want)
		}
	}
}

// waitExited waits for the process alone: its child still has its standard output.
func waitExited(h *helper) error {
	_, err := h.Process.Wait()
	return err
}

func TestExitString(t *testing.T) {
	for want, e := range map[string]Exit{
		"unknown":                         {},
		"exit status 3":                   exitOf(3 << 8),
		"killed by SIGTERM":               exitOf(15),
		"killed by SIGSEGV (core dumped)": exitOf(11 | 0x80),
		"killed by signal 40":             exitOf(40),
	} {
		if e.String() != want || e.Success() {
			t.Errorf("%+v: %q, want %q", e, e, want)
		}
	}
}

// Many processes share one thread. Closing one does not affect the others.
func TestManyProcesses(t *testing.T) {
	var all []*Process
	for range 20 {
		all = append(all, openPID(t, ready(t, "wait").Process.Pid))
	}
	for i, p := range all {
		if i%2 == 0 {
			p.Close()
		}
		if err := unix.Kill(p.Identity().PID, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	for i, p := range all {
		if i%2 == 1 {
			waitDone(t, p)
		} else if isDone(p) {
			t.Error("the death of a closed process was reported")
		}
	}
}
