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

// longestSocketName is the longest name below the runtime directory. go-plugin makes a
// directory and a socket in it, each with a random number of up to ten digits.
const longestSocketName = "/p/plugin-dir4294967295/plugin4294967295"

// runtimeRecord is runtime.json. The choice of the directory depends on the environment of the
// process that makes it (a service, a login session). So the choice is recorded where all
// processes find it.
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

// RuntimeDir returns the directory of the members' private sockets, as the leader recorded it.
// The error is os.ErrNotExist if no leader recorded one or if the directory is gone (a restart
// of the host empties /run), and ErrUnsafe if others can write to it.
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

// MakeRuntimeDir makes a runtime directory if necessary, and records it. A leader calls it
// after it has locked cluster.lock and before it uses a socket.
//
// A recorded directory that is still good is kept, because the sockets of living followers
// are in it. Otherwise the first possible of these is used, with mode 0700:
//
//   - a directory of its own in $RUNTIME_DIRECTORY,
//   - a directory of its own in $XDG_RUNTIME_DIR/dynast,
//   - "run" in the data directory,
//   - if the paths of sockets would be too long for the kernel there, one with a random
//     name in the directory for temporary files.
//
// The sockets to which others may connect are in the data directory; see ListenAdmin.
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
		// Nobody can have made a directory with this random name before.
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

// hash distinguishes the data directories that share a parent for their sockets.
func (d *Dir) hash() string {
	sum := sha256.Sum256([]byte(d.path))
	return hex.EncodeToString(sum[:6])
}

func (d *Dir) runtimeCandidates() []string {
	var c []string
	// systemd separates several directories by colons.
	if dir, _, _ := strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":"); filepath.IsAbs(dir) {
		c = append(c, filepath.Join(dir, d.hash()))
	}
	// With sudo it can be another user's directory.
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) && d.ownedByUs(dir) {
		c = append(c, filepath.Join(dir, "dynast", d.hash()))
	}
	return append(c, filepath.Join(d.path, "run"))
}

func (d *Dir) ownedByUs(path string) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && int(st.Uid) == d.ownerUID
}

// tryRuntime makes a directory if it is missing, and makes it private.
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

// makePrivate gives a directory the mode 0700. If it has this mode already, nothing is written.
func (d *Dir) makePrivate(dir string) error {
	// This check comes first, so that the mode of another user's directory is never changed.
	mode, err := d.checkRuntime(dir)
	if err != nil || mode == 0o700 {
		return err
	}
	return os.Chmod(dir, 0o700)
}

// checkRuntime refuses a directory that somebody else could have made, and returns its mode.
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
		return mode, fmt.Errorf("%s: %w: its mode %04o lets others than its owner write", dir, ErrUnsafe, mode)
	}
	return mode, nil
}

// PluginSocketDir returns the directory of the followers' control sockets, which has mode 0700.
// It makes that directory and the runtime directory if they are missing, so only the holder of
// cluster.lock may call it.
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

// SweepSockets removes the sockets of dead followers and the directories around them. They
// exist because the socket of a killed process stays. inUse reports whether a path belongs to a
// living follower. It is called for each directory, and then for the content of directories
// that are not in use. The directory of a follower that is starting is empty; a leader that
// starts followers must recognize it by its age.
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
			// Another goroutine may have removed the directory meanwhile.
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
		// This fails, as it should, if something is left in the directory.
		_ = unix.Rmdir(dirs[i])
	}
	if err := errors.Join(append(errs, ignoreMissing(err))...); err != nil {
		return fmt.Errorf("sweep sockets: %w", err)
	}
	return nil
}

// LeaveRuntimeDir removes an empty runtime directory that is outside the data directory. The
// last process of a cluster calls it; the next cluster process makes another. A directory that
// is not empty stays, together with its record.
func (d *Dir) LeaveRuntimeDir() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	dir, err := d.RuntimeDir()
	if err != nil || strings.HasPrefix(dir, d.path+string(filepath.Separator)) {
		return ignoreMissing(err)
	}
	if err := ignoreMissing(unix.Rmdir(filepath.Join(dir, "p"))); err != nil {
		return fmt.Errorf("leave runtime directory: %w", err)
	}
	if err := ignoreMissing(unix.Rmdir(dir)); err != nil {
		return fmt.Errorf("leave runtime directory: %w", err)
	}
	if err := ignoreMissing(os.Remove(d.runtimePath())); err != nil {
		return fmt.Errorf("leave runtime directory: %w", err)
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
