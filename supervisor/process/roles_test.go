package process

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/proc"
)

// lockFD is the number of the lock in a program that has no sockets.
const lockFD = 3

// roles are what helper processes do, besides waiting and exiting. A process that stays prints
// "ready" and its pid, and must be killed.
var roles = map[string]func(arg string){
	"stay": func(string) { stay() },
	// deaf ignores what a process can ignore.
	"deaf": func(string) { signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT); stay() },
	// parent starts children and stays.
	"parent": func(children string) { startChildren(children); stay() },
	// vanish starts children and exits, so that they become orphans.
	"vanish": startChildren,
	// leader starts a program with the lock in a file, and dies before it can write that down.
	"leader": func(lock string) {
		f, err := proc.TakeInstanceLock(lock)
		check(err)
		_, err = StartProgram(Program{Path: proc.Executable(), Argv: []string{"helper"}, Env: withMode("stay"), Stdout: os.Stdout, Lock: f})
		check(err)
		check(unix.Kill(os.Getpid(), unix.SIGKILL))
	},
}

func stay() {
	fmt.Println("ready", os.Getpid())
	for {
		_ = unix.Pause() // ends with every signal, such as that of a dead child
	}
}

func check(err error) {
	if err != nil {
		fmt.Println("failed", err)
		os.Exit(1)
	}
}

func withMode(mode string) []string {
	return append(Environment(helperEnv), helperEnv+"="+mode)
}

// startChildren starts a child for each word: flags, a colon and a role. The flags are s for a
// session of its own, l to close the lock, e for an empty environment, and v for an additional
// process in between that does not stay.
func startChildren(children string) {
	for child := range strings.FieldsSeq(children) {
		flags, mode, _ := strings.Cut(child, ":")
		if strings.Contains(flags, "v") {
			mode, flags = "vanish "+strings.ReplaceAll(flags, "v", "")+":"+mode, strings.ReplaceAll(flags, "e", "")
		}
		env := withMode(mode)
		if strings.Contains(flags, "e") {
			env = []string{helperEnv + "=" + mode}
		}
		closeOnExec := 0
		if strings.Contains(flags, "l") {
			closeOnExec = unix.FD_CLOEXEC
		}
		if _, err := unix.FcntlInt(lockFD, unix.F_SETFD, closeOnExec); err != unix.EBADF { // it may be closed already
			check(err)
		}
		files := []uintptr{0, 1, 2}
		_, _, err := syscall.StartProcess(proc.Executable(), []string{"helper"},
			&syscall.ProcAttr{Env: env, Files: files, Sys: &syscall.SysProcAttr{Setsid: strings.Contains(flags, "s")}})
		check(err)
	}
}
