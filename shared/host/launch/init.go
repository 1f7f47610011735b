package launch

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

// init turns a process that was started with Arguments into the wanted program.
func init() {
	if len(os.Args) == 0 || os.Args[0] != name {
		return
	}
	// Privileges belong to threads. execve keeps those of the thread that calls it.
	runtime.LockOSThread()
	s, path, argv, err := parse(os.Args[1:])
	failure := &Failure{Op: "launch", Err: err}
	if err == nil {
		syscall.CloseOnExec(s.ErrorFD)
		failure = s.run(path, argv)
	}
	if s.ErrorFD > 2 {
		_, _ = syscall.Write(s.ErrorFD, []byte(failure.encode()))
	}
	os.Exit(127)
}

// run returns only if something failed.
func (s *Settings) run(path string, argv []string) *Failure {
	if s.Umask >= 0 {
		syscall.Umask(s.Umask)
	}
	for _, sig := range s.DefaultSignals {
		if err := setDefault(sig); err != nil {
			return &Failure{Op: "stop ignoring signal " + strconv.Itoa(int(sig)), Err: err}
		}
	}
	for _, l := range s.Limits {
		limit := syscall.Rlimit{Cur: l.Value, Max: l.Value}
		// Unlike prlimit(2), syscall.Setrlimit also keeps syscall.Exec from restoring the limit of
		// open files that this process started with.
		if err := syscall.Setrlimit(l.Resource, &limit); err != nil {
			return &Failure{Op: "set resource limit " + strconv.Itoa(l.Resource) + " to " + strconv.FormatUint(l.Value, 10), Err: err}
		}
	}
	for _, c := range s.DropCapabilities {
		if err := s.dropBounding(c); err != nil {
			return &Failure{Op: "drop capability " + strconv.Itoa(c) + " from the bounding set", Err: err}
		}
	}
	if f := s.setUser(); f != nil {
		return f
	}
	if err := dropCapabilities(s.DropCapabilities); err != nil {
		return &Failure{Op: "drop capabilities", Err: err}
	}
	if s.NoNewPrivs {
		if err := prctl(prSetNoNewPrivs, 1); err != nil {
			return &Failure{Op: "set no_new_privs", Err: err}
		}
	}
	if s.Dir != "" {
		if err := syscall.Chdir(s.Dir); err != nil {
			return &Failure{Op: "change to directory " + s.Dir, Err: err}
		}
	}
	return &Failure{Op: "execute " + path, Err: syscall.Exec(path, argv, s.environment(os.Environ()))}
}

func (s *Settings) setUser() *Failure {
	c := s.Credential
	if c == nil {
		return nil
	}
	groups := make([]int, len(c.Groups))
	for i, g := range c.Groups {
		groups[i] = int(g)
	}
	if err := syscall.Setgroups(groups); err != nil {
		return &Failure{Op: "set the groups", Err: err}
	}
	if err := syscall.Setgid(int(c.Gid)); err != nil {
		return &Failure{Op: "change to group " + strconv.Itoa(int(c.Gid)), Err: err}
	}
	if err := syscall.Setuid(int(c.Uid)); err != nil {
		return &Failure{Op: "change to user " + strconv.Itoa(int(c.Uid)), Err: err}
	}
	return nil
}

// environment adds LISTEN_PID. The pid does not change with execve.
func (s *Settings) environment(env []string) []string {
	if !s.ListenPID {
		return env
	}
	const listenPID = "LISTEN_PID="
	var out []string
	for _, variable := range env {
		if !strings.HasPrefix(variable, listenPID) {
			out = append(out, variable)
		}
	}
	return append(out, listenPID+strconv.Itoa(os.Getpid()))
}

// The numbers are from linux/prctl.h, linux/capability.h and asm-generic/signal-defs.h. Package
// golang.org/x/sys/unix has them, but is initialized late (see doc.go).
const (
	prCapbsetDrop     = 24
	prSetNoNewPrivs   = 38
	capabilityVersion = 0x20080522
	sigsetBytes       = 8
)

func prctl(option, argument uintptr) error {
	if _, _, e := syscall.RawSyscall6(syscall.SYS_PRCTL, option, argument, 0, 0, 0, 0); e != 0 {
		return e
	}
	return nil
}

// setDefault gives a signal its default action. Package os/signal cannot, because it keeps ignoring what was
// ignored when the process started.
func setDefault(sig syscall.Signal) error {
	var action [64]byte // struct sigaction, all zero: SIG_DFL, no flags
	_, _, e := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&action)), 0, sigsetBytes, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// dropBounding removes a capability from the bounding set. That needs CAP_SETPCAP. With
// no_new_privs the program cannot gain a capability anyway, so the permission may be missing.
func (s *Settings) dropBounding(capability int) error {
	err := prctl(prCapbsetDrop, uintptr(capability))
	if err == syscall.EPERM && s.NoNewPrivs {
		return nil
	}
	return err
}

type capHeader struct {
	version uint32
	pid     int32
}

type capData struct{ effective, permitted, inheritable uint32 }

// dropCapabilities removes capabilities from the permitted, effective and inheritable sets of
// this thread, and so from the ambient set.
func dropCapabilities(drop []int) error {
	if len(drop) == 0 {
		return nil
	}
	header := capHeader{version: capabilityVersion}
	var data [2]capData
	if _, _, e := syscall.RawSyscall(syscall.SYS_CAPGET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0); e != 0 {
		return e
	}
	for _, c := range drop {
		if c < 0 || c >= 64 {
			return syscall.EINVAL
		}
		bit := ^(uint32(1) << (c % 32))
		d := &data[c/32]
		d.effective &= bit
		d.permitted &= bit
		d.inheritable &= bit
	}
	if _, _, e := syscall.RawSyscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0); e != 0 {
		return e
	}
	return nil
}
