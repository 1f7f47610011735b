package restore

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/proc"
)

// place is an empty directory that is alone in its parent.
func place(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "place")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestTargets(t *testing.T) {
	file := write(t, snapshotOf(t, put("a", "1")))
	ok := func(target string, beside int) {
		t.Helper()
		res, err := Restore(t.Context(), options(file, target))
		if err != nil || res.Keys != 1 || res.Revision != 2 {
			t.Fatalf("%+v %v", res, err)
		}
		if err := opened(t, target).Close(); err != nil {
			t.Error(err)
		}
		nothingLeft(t, res.DataDir, beside)
		if left, _ := filepath.Glob(filepath.Join(target, stageMark+"*")); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
	ok(filepath.Join(t.TempDir(), "a", "b", "data"), 1)

	made := filepath.Join(place(t), "made")
	if err := os.Mkdir(made, 0o750); err != nil {
		t.Fatal(err)
	}
	ok(made, 1)
	if info, err := os.Stat(made); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("mode %v %v", info.Mode(), err)
	}

	link := filepath.Join(place(t), "link")
	behind := place(t)
	if err := os.Symlink(behind, link); err != nil {
		t.Fatal(err)
	}
	ok(link, 1)

	// A file system's root contains this directory and cannot be replaced.
	volume := place(t)
	if err := os.Mkdir(filepath.Join(volume, "lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	var before, after unix.Stat_t
	if err := unix.Stat(volume, &before); err != nil {
		t.Fatal(err)
	}
	ok(volume, 1)
	if err := unix.Stat(volume, &after); err != nil || before.Ino != after.Ino {
		t.Errorf("the volume was replaced: %v", err)
	}
}

// Root restores into the directory of a service of another user.
func TestTargetsOwnerIsKept(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	const nobody = 65534
	target := place(t)
	if err := os.Chown(target, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), options(write(t, snapshotOf(t, put("a", "1"))), target)); err != nil {
		t.Fatal(err)
	}
	n := 0
	err := filepath.WalkDir(target, func(path string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &st)
		}
		if st.Uid != nobody || st.Gid != nobody {
			t.Errorf("%s belongs to %d:%d", path, st.Uid, st.Gid)
		}
		n++
		return err
	})
	if err != nil || n < 6 {
		t.Errorf("%d files, %v", n, err)
	}
}

// A killed restore leaves its stage. The next restore removes it, but not the stage of a
// running restore.
func TestStagesOfOtherRestores(t *testing.T) {
	parent := t.TempDir()
	dead, alive := filepath.Join(parent, ".data.restore-1"), filepath.Join(parent, ".data.restore-2")
	for _, dir := range []string{dead, alive} {
		if err := os.MkdirAll(filepath.Join(dir, "slots", "1"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	lock, err := proc.TryLock(filepath.Join(alive, "cluster.lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	if _, err := Restore(t.Context(), options(write(t, snapshotOf(t, put("a", "1"))), filepath.Join(parent, "data"))); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dead); !os.IsNotExist(err) {
		t.Errorf("the stage of one that was killed is still there: %v", err)
	}
	if _, err := os.Stat(alive); err != nil {
		t.Errorf("the stage of one at work: %v", err)
	}
}
