package datadir

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxSocketPathBytes is the kernel's limit for the path of a Unix socket.
const maxSocketPathBytes = 107

// longestSocketName is the longest name below the runtime directory: go-plugin
// makes a directory and a socket in it, each with a random number of up to
// ten digits.
const longestSocketName = "/p/plugin-dir4294967295/plugin4294967295"

// runtimeRecord is runtime.json. The directory depends on the environment of
// the process that chose it (a service, a login session), so the choice is
// written down where every process that cares looks.
type runtimeRecord struct {
	Schema int    `json:"schema"`
	Dir    string `json:"dir"`
}

func (r *runtimeRecord) validate() error {
	return errors.Join(
		need(filepath.IsAbs(r.Dir), "dir is not absolute"),
		need(len(r.Dir)+len(longestSocketName) <= maxSocketPathBytes, "dir is too long for sockets"),
	)
}

func (d *Dir) runtimePath() string { return filepath.Join(d.path, "runtime.json") }

// RuntimeDir is the directory of the members' private sockets, as the leader
// recorded it. The error is os.ErrNotExist when no leader has, or when the directory is gone
// (a restart of the host empties /run), and ErrUnsafe when it isn't the
// owner's alone.
func (d *Dir) RuntimeDir() (string, error) {
	var r runtimeRecord
	err := readState(d.runtimePath(), &r)
	if err == nil {
		_, err = d.checkRuntime(r.Dir)
	}
	if err != nil {
		return "", fmt.Errorf("runtime directory: %w", err)
	}
	return r.Dir, nil
}

// MakeRuntimeDir makes sure that there is a runtime directory, and records it.
// A leader calls it once it holds cluster.lock, before it uses a socket.
//
// A recorded directory that is still good is kept, since the sockets of living
// followers are in it. Otherwise it is a directory of its own in
// $RUNTIME_DIRECTORY, else in $XDG_RUNTIME_DIR/dynast, else it is "run" in the data
// directory, else, when the paths of sockets would be too long for the kernel, one with a random
// name in the directory for temporary files. Its mode is 0700. The sockets that
// others may connect to are in the data directory, see ListenAdmin.
func (d *Dir) MakeRuntimeDir() (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if dir, err := d.RuntimeDir(); err == nil {
		return dir, nil
	}
	dir, err := d.chooseRuntime()
	if err != nil {
		return "", fmt.Errorf("make runtime directory: %w", err)
	}
	if err := writeState(d.runtimePath(), &runtimeRecord{Schema: schema, Dir: dir}); err != nil {
		return "", fmt.Errorf("record runtime directory: %w", err)
	}
	return dir, nil
}

func (d *Dir) chooseRuntime() (string, error) {
	var errs []error
	for _, dir := range d.runtimeCandidates() {
		err := d.tryRuntime(dir)
		if err == nil {
			return dir, nil
		}
		errs = append(errs, err)
	}
	for _, base := range []string{os.TempDir(), "/tmp"} {
		// A random name: nobody can have made it before.
		dir, err := os.MkdirTemp(base, fmt.Sprintf("dynast-%d-%s-", d.ownerUID, d.hash()))
		if err == nil {
			if err = d.tryRuntime(dir); err == nil {
				return dir, nil
			}
			os.Remove(dir)
		}
		errs = append(errs, err)
	}
	return "", errors.Join(errs...)
}

// hash tells data directories apart that share a place for sockets.
func (d *Dir) hash() string {
	sum := sha256.Sum256([]byte(d.path))
	return hex.EncodeToString(sum[:6])
}

func (d *Dir) runtimeCandidates() []string {
	var c []string
	// systemd separates several by colons.
	if dir, _, _ := strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":"); filepath.IsAbs(dir) {
		c = append(c, filepath.Join(dir, d.hash()))
	}
	// With sudo it can be another user's.
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) && d.ownedByUs(dir) {
		c = append(c, filepath.Join(dir, "dynast", d.hash()))
	}
	return append(c, filepath.Join(d.path, "run"))
}

func (d *Dir) ownedByUs(path string) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && int(st.Uid) == d.ownerUID
}

// tryRuntime makes a directory if it is missing, and makes it fit.
func (d *Dir) tryRuntime(dir string) error {
	record := runtimeRecord{Dir: dir}
	if err := record.validate(); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return d.makePrivate(dir)
}

// makePrivate gives a directory the mode 0700, unless it has it: even the same mode
// again is a write.
func (d *Dir) makePrivate(dir string) error {
	// Before the mode is changed: never change what is not ours.
	mode, err := d.checkRuntime(dir)
	if err != nil || mode == 0o700 {
		return err
	}
	return os.Chmod(dir, 0o700)
}

// checkRuntime refuses a directory that somebody else could have put there, and
// returns its mode.
func (d *Dir) checkRuntime(dir string) (mode uint32, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return 0, &os.PathError{Op: "lstat", Path: dir, Err: err}
	}
	mode = st.Mode & 0o7777
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return mode, fmt.Errorf("%s: %w: it is not a directory", dir, ErrUnsafe)
	case int(st.Uid) != d.ownerUID:
		return mode, fmt.Errorf("%s: %w: it belongs to uid %d, the data directory to uid %d", dir, ErrUnsafe, st.Uid, d.ownerUID)
	case mode&0o022 != 0:
		return mode, fmt.Errorf("%s: %w: its mode is %04o", dir, ErrUnsafe, mode)
	}
	return mode, nil
}

// PluginSocketDir is the directory of the followers' control sockets, mode 0700
// always. It is made if it is missing, and the runtime directory with it, so only
// the holder of cluster.lock may ask.
func (d *Dir) PluginSocketDir() (string, error) {
	run, err := d.MakeRuntimeDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(run, "p")
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("make plugin socket directory: %w", err)
	}
	if err := d.makePrivate(dir); err != nil {
		return "", fmt.Errorf("plugin socket directory: %w", err)
	}
	return dir, nil
}

// SweepSockets removes the sockets of followers that are no more, and the
// directories around them: a socket outlives a process that is killed. inUse tells by its path
// which one belongs to a living follower; it is asked for each directory first, and then
// for what is in those that are not in use. The directory of a follower that is just
// starting is empty: a leader that has started some must know it by its age.
func (d *Dir) SweepSockets(inUse func(path string) bool) error {
	dir, err := d.PluginSocketDir()
	if err != nil {
		return err
	}
	var dirs []string
	var errs []error
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			// Another goroutine may have just removed the directory.
			return ignoreMissing(err)
		case e.IsDir() && path != dir:
			if inUse(path) {
				return fs.SkipDir
			}
			dirs = append(dirs, path)
		case e.Type() == fs.ModeSocket && !inUse(path):
			errs = append(errs, ignoreMissing(os.Remove(path)))
		}
		return nil
	})
	for i := len(dirs) - 1; i >= 0; i-- {
		// Refused by the kernel, rightly, when something is left in it.
		_ = unix.Rmdir(dirs[i])
	}
	if err := errors.Join(append(errs, ignoreMissing(err))...); err != nil {
		return fmt.Errorf("sweep sockets: %w", err)
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
