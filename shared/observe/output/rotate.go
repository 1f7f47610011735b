package output

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// rotate finishes an interrupted rotation, and begins one if the live file is too large.
// Its steps are explained in doc.go.
func (k *Keeper) rotate() error {
	if k.st.live.phase != idle {
		if err := k.finish(); err != nil {
			return err
		}
	}
	live := k.end() - k.st.live.start
	if k.limits.MaxBytes <= 0 || live <= k.limits.MaxBytes || k.unbounded {
		return nil
	}
	block, err := k.blockBytes()
	if err != nil {
		return err
	}
	// The file must keep a byte, because a range at its end cannot be collapsed.
	n := (live - 1) / block * block
	if n == 0 {
		return nil
	}
	if err := k.probe(); err != nil {
		return err
	}
	if k.limits.MaxBackups > 0 {
		err = k.copyOut(n, cutting)
	} else {
		err = k.drop(n, cutting)
	}
	if err != nil {
		return err
	}
	if err := k.finish(); err != nil {
		return err
	}
	if err := k.step("index"); err != nil {
		return err
	}
	if err := k.openIndex(k.indexed); err != nil {
		return err
	}
	return k.prune()
}

// blockBytes is the unit in which the file can be cut.
func (k *Keeper) blockBytes() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(k.f.Fd()), &st); err != nil {
		return 0, fmt.Errorf("look at the file system: %w", err)
	}
	return max(int64(os.Getpagesize()), int64(st.Bsize)), nil
}

// probe returns ErrUnbounded if holes cannot be punched into the file. It tries that behind
// the end of the file.
func (k *Keeper) probe() error {
	if k.supported {
		return nil
	}
	err := k.punch(k.size+fileSpan, int64(os.Getpagesize()))
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		k.unbounded = true
		return fmt.Errorf("%s: %w: %w", k.path, ErrUnbounded, err)
	}
	k.supported = err == nil
	return err
}

func (k *Keeper) punch(off, n int64) error {
	err := retryInterrupted(func() error {
		return unix.Fallocate(int(k.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
	if err != nil {
		return fmt.Errorf("punch hole into output file: %w", err)
	}
	return nil
}

func retryInterrupted(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// copyOut copies the first bytes of the live output to a rotated file and moves the start
// of the live output behind them, where a phase begins.
func (k *Keeper) copyOut(n int64, p phase) error {
	if err := k.step("copy"); err != nil {
		return err
	}
	temp := k.path + tempSuffix
	if err := k.copyTo(temp, n); err != nil {
		err = errors.Join(err, os.Remove(temp))
		if errors.Is(err, unix.ENOSPC) {
			// The oldest one is due for removal anyway. Its room may be enough.
			err = errors.Join(err, k.pruneTo(k.limits.MaxBackups-1))
		}
		return fmt.Errorf("copy output to rotated file: %w", err)
	}
	if err := k.step("publish"); err != nil {
		return err
	}
	if err := os.Rename(temp, segmentPath(k.path, k.st.live.start)); err != nil {
		return fmt.Errorf("rename rotated output file: %w", err)
	}
	if err := syncDirectory(k.path); err != nil {
		return fmt.Errorf("rename rotated output file: %w", err)
	}
	return k.drop(n, p)
}

func (k *Keeper) copyTo(path string, n int64) (err error) {
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	if _, err := k.f.Seek(k.st.live.start-k.st.live.base, io.SeekStart); err != nil {
		return err
	}
	if _, err := io.CopyN(to, k.f, n); err != nil {
		return err
	}
	return to.Sync()
}

// drop moves the start of the live output forward and begins a phase.
func (k *Keeper) drop(n int64, p phase) error {
	if err := k.step("start"); err != nil {
		return err
	}
	next := k.st
	next.live.start += n
	next.live.phase = p
	return k.store(next)
}

// finish cuts off what is before the start of the live output.
func (k *Keeper) finish() error {
	next := k.st
	n := next.live.start - next.live.base
	if next.live.phase == cutting || next.live.phase == copied {
		if err := k.step("punch"); err != nil {
			return err
		}
		if err := k.punch(0, n); err != nil {
			return err
		}
		hole, err := firstData(k.f)
		if err != nil {
			return err
		}
		if err := k.f.Sync(); err != nil {
			return fmt.Errorf("punch hole into output file: %w", err)
		}
		next.live.phase = collapsing
		if k.punchOnly || hole < n {
			next.live.phase = idle
		}
		if err := k.step("phase"); err != nil {
			return err
		}
		if err := k.store(next); err != nil {
			return err
		}
	}
	if next.live.phase == collapsing {
		return k.collapse(n)
	}
	return nil
}

// collapse removes the hole at the beginning of the live file, which is n bytes long.
func (k *Keeper) collapse(n int64) error {
	hole, err := firstData(k.f)
	if err != nil {
		return err
	}
	next := k.st
	next.live.phase = idle
	removed := hole == 0 // by an earlier call or an earlier Keeper
	if !removed {
		if err := k.step("collapse"); err != nil {
			return err
		}
		err := retryInterrupted(func() error {
			return unix.Fallocate(int(k.f.Fd()), unix.FALLOC_FL_COLLAPSE_RANGE, 0, n)
		})
		// If it failed, the hole stays.
		if removed = err == nil; removed {
			k.size -= n
		} else if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
			k.punchOnly = errors.Is(err, unix.EOPNOTSUPP)
		} else {
			return fmt.Errorf("collapse output file: %w", err)
		}
	}
	k.collapsed = removed
	if err := k.f.Sync(); err != nil {
		return fmt.Errorf("collapse output file: %w", err)
	}
	if removed {
		next.live.base = next.live.start
	}
	if err := k.step("base"); err != nil {
		return err
	}
	return k.store(next)
}

// prune removes the oldest rotated files, and the index files that tell about nothing else.
func (k *Keeper) prune() error { return k.pruneTo(k.limits.MaxBackups) }

func (k *Keeper) pruneTo(backups int) error {
	if err := k.step("prune"); err != nil {
		return err
	}
	segments, indexes, err := list(k.path)
	if err != nil {
		return err
	}
	var errs []error
	remove := func(path string) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove old output: %w", err))
		}
	}
	for len(segments) > backups {
		remove(segments[0].path)
		segments = segments[1:]
	}
	oldest := k.st.live.start
	if len(segments) > 0 {
		oldest = segments[0].start
	}
	for i := 1; i < len(indexes) && indexes[i] <= oldest; i++ {
		remove(indexPath(k.path, indexes[i-1]))
	}
	return errors.Join(errs...)
}
