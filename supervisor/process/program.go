package process

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/launch"
	"github.com/dynast-io/dynast/shared/host/proc"
)

// Program describes a user's program. It runs in a session of its own and outlives this process.
type Program struct {
	// Path is the program file. Without a slash it is searched in the PATH of Env. A relative
	// path with a slash starts at Dir.
	Path      string
	Argv, Env []string
	Dir       string   // the working directory; "" is that of this process
	Stdout    *os.File // standard output and standard error; standard input is /dev/null
	// Extra are the descriptors from 3 on. Lock is the one after them, or nil.
	Extra []*os.File
	Lock  *os.File

	// Opened, if set, is called as soon as the process exists. With a launcher that is before the
	// program is executed. If the start fails then, the Process is closed.
	Opened func(*proc.Process)

	Credential *syscall.Credential // nil: as this process; see LookupCredential
	Cgroup     *os.File            // the directory of a cgroup v2 in which the program starts, or nil

	// The following need a launcher, which adds about 4 ms to the start (see package launch).
	Umask            *int // nil: as in this process
	Limits           []launch.Limit
	NoNewPrivileges  bool
	DropCapabilities []int
	ListenPID        bool // set LISTEN_PID to the program's pid; see sd_listen_fds(3)
}

// closeInherited keeps programs from inheriting descriptors that this process has inherited
// itself, for example from a shell. Go marks its own descriptors close-on-exec. Kernels before
// Linux 5.11 cannot do it.
var closeInherited = sync.OnceFunc(func() {
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
})

// StartProgram starts a program as a child of this process. It returns when the program has been
// executed, or with the reason why it cannot be. The new process has the lock from fork on.
//
// The returned Process is open even if the program is dead already. Its method Exit reaps the
// program after its death. This process keeps its copies of the files.
func StartProgram(p Program) (*proc.Process, error) {
	path, err := p.find()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Path, err)
	}
	closeInherited()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Path, err)
	}
	defer null.Close()
	files := append([]*os.File{null, p.Stdout, p.Stdout}, p.Extra...)
	if p.Stdout == nil {
		files[1], files[2] = null, null
	}
	if p.Lock != nil {
		files = append(files, p.Lock)
	}
	var process *proc.Process
	if ignored := ignoredSignals(); p.needsLauncher() || len(ignored) > 0 {
		process, err = p.launch(path, files, ignored)
	} else {
		process, err = p.start(path, p.Argv, p.Env, files, p.Dir, p.Credential)
		if err != nil {
			err = p.explain(path, err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Path, err)
	}
	return process, nil
}

func (p *Program) needsLauncher() bool {
	return p.Umask != nil || len(p.Limits) > 0 || p.NoNewPrivileges || len(p.DropCapabilities) > 0 || p.ListenPID
}

// ignoredSignals returns the signals that a program would ignore because this process does. Go
// gives all other signals their default actions in a child. A program that ignores SIGHUP, for
// example because nohup started the cluster, could not be told to reload.
func ignoredSignals() []syscall.Signal {
	var ignored []syscall.Signal
	for sig := syscall.Signal(1); sig < 32; sig++ {
		if sig != syscall.SIGKILL && sig != syscall.SIGSTOP && signal.Ignored(sig) {
			ignored = append(ignored, sig)
		}
	}
	return ignored
}

func (p *Program) start(path string, argv, env []string, files []*os.File, dir string, credential *syscall.Credential) (*proc.Process, error) {
	attr := &syscall.SysProcAttr{Setsid: true, Credential: credential}
	if p.Cgroup != nil {
		attr.UseCgroupFD, attr.CgroupFD = true, int(p.Cgroup.Fd())
	}
	child, err := proc.StartIn(dir, path, argv, env, files, attr)
	if err != nil {
		return nil, err
	}
	process, err := proc.OpenChild(child.Pid)
	if err != nil {
		_ = child.Kill()
		_, _ = child.Wait()
		return nil, err
	}
	if p.Opened != nil {
		p.Opened(process)
	}
	return process, child.Release()
}

// launch starts the program by way of package launch, and waits for its execve.
func (p *Program) launch(path string, files []*os.File, ignored []syscall.Signal) (*proc.Process, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	settings := launch.Settings{
		Umask: -1, Limits: p.Limits, Credential: p.Credential, Dir: p.Dir,
		NoNewPrivs: p.NoNewPrivileges, DropCapabilities: p.DropCapabilities,
		DefaultSignals: ignored, ListenPID: p.ListenPID, ErrorFD: len(files),
	}
	if p.Umask != nil {
		settings.Umask = *p.Umask
	}
	process, err := p.start(proc.Executable(), launch.Arguments(settings, path, p.Argv), p.Env, append(files, w), "", nil)
	w.Close()
	if err != nil {
		return nil, err
	}
	// The pipe ends with execve, or when the launcher dies. A launcher that was killed is a
	// program that was killed.
	message, err := io.ReadAll(r)
	if err == nil {
		err = launch.ParseError(message)
	}
	if err == nil {
		return process, nil
	}
	_ = process.Kill()
	<-process.Done()
	process.Exit()
	process.Close()
	var failure *launch.Failure
	if errors.As(err, &failure) && failure.Op == "execute "+path {
		return nil, p.explain(path, failure.Err)
	}
	return nil, err
}

// find returns the path to execute.
func (p *Program) find() (string, error) {
	if p.Path == "" {
		return "", errors.New("the path of the program is empty")
	}
	if strings.Contains(p.Path, "/") {
		return p.Path, nil
	}
	var dirs string
	for _, variable := range p.Env {
		if value, ok := strings.CutPrefix(variable, "PATH="); ok {
			dirs = value
		}
	}
	for _, dir := range filepath.SplitList(dirs) {
		if dir == "" {
			dir = "." // as a shell does
		}
		path := filepath.Join(dir, p.Path)
		if !strings.Contains(path, "/") {
			path = "./" + path
		}
		if info, err := os.Stat(p.inDir(path)); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("the program was not found in PATH (%q): %w", dirs, fs.ErrNotExist)
}

// inDir returns what a relative path means for the program.
func (p *Program) inDir(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(p.Dir, path)
}

// explain says what the error number of a failed start means. The kernel reports the same
// number for several reasons.
func (p *Program) explain(path string, err error) error {
	if p.Dir != "" {
		switch info, e := os.Stat(p.Dir); {
		case e != nil:
			return fmt.Errorf("working directory: %w", e)
		case !info.IsDir():
			return fmt.Errorf("working directory %s: %w", p.Dir, syscall.ENOTDIR)
		}
	}
	info, e := os.Stat(p.inDir(path))
	switch {
	case errors.Is(err, syscall.ENOENT) && e != nil:
		return e
	case errors.Is(err, syscall.ENOENT):
		return fmt.Errorf("the interpreter or loader that %s names does not exist: %w", path, err)
	case errors.Is(err, syscall.EACCES) && e == nil && info.IsDir():
		return fmt.Errorf("%s is a directory: %w", path, err)
	case errors.Is(err, syscall.EACCES) && e == nil && info.Mode()&0o111 == 0:
		return fmt.Errorf("%s is not executable, see chmod(1): %w", path, err)
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("%s is neither a program for this machine nor a script that begins with #!: %w", path, err)
	case errors.Is(err, syscall.EPERM) && p.Credential != nil && unix.Geteuid() != 0:
		return fmt.Errorf("change to user %d: %w", p.Credential.Uid, err)
	}
	return err
}
