package proc

import (
	"fmt"

	"golang.org/x/sys/unix"
)

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
	// Without permission the field reads 0, which would also mean a normal end. So 0 is
	// ignored.
	if st, err := readStat(id.PID); err == nil && st.startTicks == id.StartTime && st.dead() && st.waitStatus != 0 {
		return st.waitStatus, true
	}
	return pidfdStatus(pidfd)
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
