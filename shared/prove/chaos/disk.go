package chaos

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/proc"
)

// disk is a small file system that a fault can fill.
type disk struct {
	path    string
	ballast string
}

// diskBytes is enough for a cluster of a few members and its history.
const diskBytes = 768 << 20

// mountDisk mounts a file system in memory at a path that does not exist yet. Only root can do
// that.
func mountDisk(path string) (*disk, error) {
	if os.Getuid() != 0 {
		return nil, errors.New("only root can mount a small file system: run as root, or leave this fault out")
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		return nil, err
	}
	if err := unix.Mount("dynast-chaos", path, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", diskBytes)); err != nil {
		return nil, errors.Join(fmt.Errorf("mount a small file system: %w", err), os.Remove(path))
	}
	return &disk{path: path, ballast: filepath.Join(path, "other-file")}, nil
}

// unmount detaches the file system. The kernel frees it when its last file is closed.
func (d *disk) unmount() error {
	if err := unix.Unmount(d.path, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", d.path, err)
	}
	return os.Remove(d.path)
}

// fill writes a file until at most leave bytes are free.
func (d *disk) fill(leave uint64) error {
	f, err := os.OpenFile(d.ballast, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	page := make([]byte, os.Getpagesize())
	for {
		free, err := proc.FreeBytes(d.path)
		if err != nil || free <= leave {
			return err
		}
		n := min(max(int(free-leave)/len(page), 1), 1024)
		if _, err := f.Write(slices.Repeat(page, n)); err != nil && !errors.Is(err, unix.ENOSPC) {
			return err
		}
	}
}

func (d *disk) makeRoom() error { return os.Remove(d.ballast) }
