package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/datadir"
	"github.com/dynast-io/dynast/shared/proc"
)

// stage is the data directory while it is built, under another name.
type stage struct {
	dir    *datadir.Dir
	lock   *proc.Lock // of the stage, for as long as it is in work
	target string
	// inside: the target is there and cannot be replaced, so it is filled.
	inside bool
	// owner is whose the target was, if it was there.
	owner *unix.Stat_t
}

const stageMark = ".restore-"

// newStage refuses a target with something in it.
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
	// It was made a moment ago, so nobody else can have the lock.
	if s.dir, err = datadir.Open(path, true); err == nil {
		s.lock, err = proc.TryLock(s.dir.ClusterLock())
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(path))
	}
	return s, nil
}

// lookAtTarget wants nothing, or an empty directory. One that is a mount point or
// in a directory of somebody else stays, with its mode and owner: a volume of a
// container, a directory that was made for a service.
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
			return fmt.Errorf("%w: there is %s in it; give another directory with --data-dir, or move this one away. Nothing was changed", ErrNotEmpty, f.Name())
		}
	}
	s.owner = &unix.Stat_t{}
	if err := unix.Stat(s.target, s.owner); err != nil {
		return err
	}
	s.inside = s.mustStay()
	return nil
}

// mustStay reports whether the target, an empty directory, cannot be replaced by
// another one of that name.
func (s *stage) mustStay() bool {
	parent := filepath.Dir(s.target)
	var st unix.Stat_t
	files, err := os.ReadDir(s.target)
	return err != nil || len(files) > 0 || unix.Stat(parent, &st) != nil || st.Dev != s.owner.Dev ||
		unix.Access(parent, unix.W_OK) != nil || st.Mode&unix.S_ISVTX != 0
}

// sweep removes what restores left behind that were killed.
func sweep(within, name string) {
	old, err := filepath.Glob(filepath.Join(within, name+"*"))
	if err != nil {
		return
	}
	for _, path := range old {
		lock, err := proc.TryLock(filepath.Join(path, "cluster.lock"))
		if err != nil {
			continue // at work
		}
		_ = os.RemoveAll(path)
		_ = lock.Unlock()
	}
}

// publish gives the stage the name of the target, durably.
func (s *stage) publish() (string, error) {
	// Its owner is this process, which will be gone.
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

// replace puts the stage in the target's place, which rename(2) refuses if
// there is something in it by now.
func (s *stage) replace() error {
	if s.owner != nil {
		if err := os.Chmod(s.dir.Path(), fs.FileMode(s.owner.Mode&0o755)); err != nil {
			return err
		}
	}
	// os.Rename refuses a directory that is empty, too.
	if err := unix.Rename(s.dir.Path(), s.target); err != nil {
		return fmt.Errorf("rename %s to %s: %w", s.dir.Path(), s.target, err)
	}
	return nil
}

// moveIn fills the target. Who is killed in the middle leaves files that another
// restore refuses; without succession.json a leader says what it makes of them.
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

// giveAway makes all of it the target's owner's, when root restores for a
// service of another user.
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

// discard removes what was not published.
func (s *stage) discard() {
	_ = os.RemoveAll(s.dir.Path())
	_ = s.lock.Unlock()
}
