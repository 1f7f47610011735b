package proc

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// Exit says how a process ended.
type Exit struct {
	Code       int         // the exit status, if no signal ended the process
	Signal     unix.Signal // the signal that ended the process, or 0
	CoreDumped bool
	Known      bool // false: the kernel does not tell; the other fields are zero
}

// Success reports whether the process is known to have ended with exit status 0.
func (e Exit) Success() bool { return e == Exit{Known: true} }

// String returns a text like "exit status 3", "killed by SIGKILL" or "unknown".
func (e Exit) String() string {
	switch {
	case !e.Known:
		return "unknown"
	case e.Signal == 0:
		return fmt.Sprintf("exit status %d", e.Code)
	}
	name := unix.SignalName(e.Signal)
	if name == "" {
		name = fmt.Sprintf("signal %d", int(e.Signal)) // a real-time signal
	}
	if e.CoreDumped {
		name += " (core dumped)"
	}
	return "killed by " + name
}

func exitOf(s unix.WaitStatus) Exit {
	if s.Signaled() {
		return Exit{Signal: s.Signal(), CoreDumped: s.CoreDump(), Known: true}
	}
	return Exit{Code: s.ExitStatus(), Known: true}
}

// Exit says how the process ended, whether it was a child of this process or not. The result is
// false while the process lives. If the process is a child, Exit reaps it; nothing else may
// wait for it then. For other processes see ExitStatus about what the kernel tells.
func (p *Process) Exit() (Exit, bool) {
	var e Exit
	ended := false
	_ = p.with(func(pidfd int) error {
		p.exitMu.Lock()
		defer p.exitMu.Unlock()
		if !p.exit.Known && dead(pidfd) {
			ended = true
			if s, ok := reap(pidfd, p.id.PID); ok {
				p.exit = exitOf(s)
			} else if s, ok := exitStatus(pidfd, p.id); ok {
				p.exit = exitOf(s)
			}
		}
		e, ended = p.exit, ended || p.exit.Known
		return nil
	})
	return e, ended
}

// reap reaps a dead process. It returns false if the process is not a child of this one or was
// reaped before.
func reap(pidfd, pid int) (unix.WaitStatus, bool) {
	// The pid may be another child's by now. The pidfd says whether it still belongs to the
	// process.
	_, err := uninterrupted(func() (int, error) {
		return 0, unix.Waitid(unix.P_PIDFD, pidfd, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	})
	if err != nil {
		return 0, false
	}
	var status unix.WaitStatus
	got, err := uninterrupted(func() (int, error) { return unix.Wait4(pid, &status, unix.WNOHANG, nil) })
	return status, err == nil && got == pid
}

// ExitStatus says how the process ended, like "signal: killed" or "exit status 4". ok is false
// while the process lives. A caller that is not the parent may not get the status either: since
// Linux 6.15 the kernel keeps it for everybody, before that it can be read only until the
// parent has reaped the process.
func (p *Process) ExitStatus() (string, bool) {
	var status unix.WaitStatus
	known := false
	_ = p.with(func(pidfd int) error {
		if dead(pidfd) {
			status, known = exitStatus(pidfd, p.id)
		}
		return nil
	})
	if !known {
		return "", false
	}
	return describe(status), true
}

// exitStatus asks the pidfd, which knows the status after the process was reaped, and /proc,
// which knows it before. It asks the pidfd a second time in case the process was reaped in
// between.
func exitStatus(pidfd int, id Identity) (unix.WaitStatus, bool) {
	if s, ok := pidfdStatus(pidfd); ok {
		return s, true
	}
	// Without permission the field reads 0, which would also mean a normal end.
	if st, err := readStat(id.PID); err == nil && st.startTicks == id.StartTime && st.dead() && (st.waitStatus != 0 || inspectable(id.PID)) {
		return st.waitStatus, true
	}
	return pidfdStatus(pidfd)
}

// inspectable reports whether this process may read what the kernel hides from other users in
// /proc. The file needs the same permission as the exit status and can be read of a zombie.
func inspectable(pid int) bool {
	_, err := readSmall("/proc/" + strconv.Itoa(pid) + "/io")
	return err == nil
}

func pidfdStatus(pidfd int) (unix.WaitStatus, bool) {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	if err := unix.IoctlPidfdInfo(pidfd, &info); err != nil || info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return 0, false
	}
	return unix.WaitStatus(info.Exit_code), true
}

// describe words a status like package os.
func describe(s unix.WaitStatus) string {
	switch {
	case s.Signaled() && s.CoreDump():
		return fmt.Sprintf("signal: %v (core dumped)", s.Signal())
	case s.Signaled():
		return fmt.Sprintf("signal: %v", s.Signal())
	default:
		return fmt.Sprintf("exit status %d", s.ExitStatus())
	}
}
