package proc

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// Start starts a program with files as its descriptors 0, 1, 2 and so on. All other
// descriptors are closed in it. The caller has to wait for the process.
//
// It differs from os/exec in one point. os/exec calls os.File.Fd, which sets the open file
// to blocking mode for everybody who shares it. For a listening socket from which others
// accept, that would mean an accept that cannot be interrupted. Start does not change the
// mode.
func Start(path string, argv, env []string, files []*os.File, attr *syscall.SysProcAttr) (*os.Process, error) {
	return StartIn("", path, argv, env, files, attr)
}

// StartIn is Start in a working directory. Without one it is that of this process.
func StartIn(dir, path string, argv, env []string, files []*os.File, attr *syscall.SysProcAttr) (*os.Process, error) {
	var pid int
	err := withFDs(files, nil, func(fds []int) error {
		raw := make([]uintptr, len(fds))
		for i, fd := range fds {
			raw[i] = uintptr(fd)
		}
		var err error
		pid, _, err = syscall.StartProcess(path, argv, &syscall.ProcAttr{Dir: dir, Env: env, Files: raw, Sys: attr})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("find started process %d: %w", pid, err), syscall.Kill(pid, syscall.SIGKILL))
	}
	return p, nil
}
