package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
)

// stage is the data directory while it is being built, under another name.
type stage struct {
	dir    *datadir.Dir
	lock   *proc.Lock // of the stage, held while it is being built
	target string
	// inside means that the target exists and cannot be replaced, so it is filled in place.
	inside bool
	// owner is the target's owner and mode, or nil if the target does not exist.
	owner *unix.Stat_t
}

const stageMark = ".restore-"

// newStage makes a stage for a target. It refuses a target that is not empty.
func newStage(target string) (*stage, error) {
	target, err := filepath.Abs(target)
	if err != nil {
		return nil, err
	}
	s := &stage{target: target}
	if err := s.lookAtTarget(); err != nil {
		return nil, err
	}
	within, name := filepath.Dir(s.target), "."+filepath.Base(s.target)+stageMark
	if s.inside {
		within, name = s.target, stageMark
	} else if err := os.MkdirAll(within, 0o755); err != nil {
		return nil, err
	}
	sweep(within, name)
	path, err := os.MkdirTemp(within, name)
	if err != nil {
		return nil, err
	}
	// The directory is new, so nobody else can hold its lock.
	if s.dir, err = datadir.Open(path, true); err == nil {
		s.lock, err = proc.TryLock(s.dir.ClusterLock())
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(path))
	}
	return s, nil
}

// lookAtTarget accepts a target that does not exist or is an empty directory. An empty
// directory keeps its mode and owner. If it is a mount point, or its parent belongs to somebody
// else, the directory itself stays: a volume of a container, or a directory that was made for a
// service.
func (s *stage) lookAtTarget() error {
	real, err := filepath.EvalSymlinks(s.target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	s.target = real
	files, err := os.ReadDir(s.target)
	if err != nil {
		return err
	}
	for _, f := range files {
		if f.Name() != "lost+found" && !strings.HasPrefix(f.Name(), stageMark) {
			return fmt.Errorf("%w: it contains %s; give another directory with --data-dir, or move this one away. Nothing was changed", ErrNotEmpty, f.Name())
		}
	}
	s.owner = &unix.Stat_t{}
	if err := unix.Stat(s.target, s.owner); err != nil {
		return err
	}
	s.inside = s.mustStay()
	return nil
}

// mustStay reports whether the target, an empty directory, cannot be replaced by a rename.
func (s *stage) mustStay() bool {
	parent := filepath.Dir(s.target)
	var st unix.Stat_t
	files, err := os.ReadDir(s.target)
	return err != nil || len(files) > 0 || unix.Stat(parent, &st) != nil || st.Dev != s.owner.Dev ||
		unix.Access(parent, unix.W_OK) != nil || st.Mode&unix.S_ISVTX != 0
}

// sweep removes what killed restores left behind.
func sweep(within, name string) {
	old, err := filepath.Glob(filepath.Join(within, name+"*"))
	if err != nil {
		return
	}
	for _, path := range old {
		lock, err := proc.TryLock(filepath.Join(path, "cluster.lock"))
		if err != nil {
			continue // that restore is still running
		}
		_ = os.RemoveAll(path)
		_ = lock.Unlock()
	}
}

// publish gives the stage the target's name, durably.
func (s *stage) publish() (string, error) {
	// The lock file names this process as its owner, which will be gone.
	if err := os.Remove(s.dir.ClusterLock()); err != nil {
		return "", err
	}
	if err := s.giveAway(); err != nil {
		return "", err
	}
	var err error
	if s.inside {
		err = s.moveIn()
	} else if err = syncAll(s.dir.Path()); err == nil {
		err = s.replace()
	}
	if err != nil {
		return "", err
	}
	if err := syncAll(s.target, filepath.Dir(s.target)); err != nil {
		return "", err
	}
	return s.target, nil
}

// replace renames the stage to the target. rename(2) fails if the target is not empty any more.
func (s *stage) replace() error {
	if s.owner != nil {
		if err := os.Chmod(s.dir.Path(), fs.FileMode(s.owner.Mode&0o755)); err != nil {
			return err
		}
	}
	// os.Rename would refuse an empty directory too.
	if err := unix.Rename(s.dir.Path(), s.target); err != nil {
		return fmt.Errorf("rename %s to %s: %w", s.dir.Path(), s.target, err)
	}
	return nil
}

// moveIn fills the target in place. If the process is killed meanwhile, files stay behind.
// Another restore then refuses the directory, and without succession.json a leader reports what
// it does with them.
func (s *stage) moveIn() (err error) {
	var moved []string
	defer func() {
		for _, path := range moved {
			if err != nil {
				err = errors.Join(err, os.RemoveAll(path))
			}
		}
	}()
	for _, name := range []string{"slots", "cluster.json", "succession.json"} {
		to := filepath.Join(s.target, name)
		if err := os.Rename(filepath.Join(s.dir.Path(), name), to); err != nil {
			return err
		}
		moved = append(moved, to)
		if err := syncAll(s.target); err != nil {
			return err
		}
	}
	return os.RemoveAll(s.dir.Path())
}

// giveAway makes the target's owner the owner of all files. This matters when root restores for
// a service of another user.
func (s *stage) giveAway() error {
	if s.owner == nil || os.Geteuid() == int(s.owner.Uid) {
		return nil
	}
	return filepath.WalkDir(s.dir.Path(), func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(s.owner.Uid), int(s.owner.Gid))
	})
}

// discard removes the stage if it was not published.
func (s *stage) discard() {
	_ = os.RemoveAll(s.dir.Path())
	_ = s.lock.Unlock()
}
