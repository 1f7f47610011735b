package output

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// fileSpan is the distance between the first positions of a live file and of the one that
// replaces it, at least.
const fileSpan = 1 << 40

// maxPosition bounds positions that were read from a file.
const maxPosition = 1 << 62

const (
	positionDigits = 19
	stateSuffix    = ".state"
	tempSuffix     = ".tmp"
	indexSuffix    = ".index"
)

// Open opens the file to which a program appends its output, and creates it if necessary.
// The program gets it as its standard output and its standard error.
func Open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open output file: %w", err)
	}
	return f, nil
}

// segment is a rotated file.
type segment struct {
	path       string
	start, end int64 // positions
}

func segmentPath(path string, start int64) string {
	return fmt.Sprintf("%s.%0*d", path, positionDigits, start)
}

func indexPath(path string, start int64) string { return segmentPath(path, start) + indexSuffix }

// list returns the rotated files and the first positions of the index files, in order.
func list(path string) (segments []segment, indexes []int64, err error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, nil, fmt.Errorf("read output directory: %w", err)
	}
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), filepath.Base(path)+".")
		if !ok {
			continue
		}
		number, isIndex := strings.CutSuffix(number, indexSuffix)
		start, err := strconv.ParseInt(number, 10, 64)
		if err != nil || len(number) != positionDigits || start < 0 || start > maxPosition || !e.Type().IsRegular() {
			continue
		}
		if isIndex {
			indexes = append(indexes, start)
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) { // removed meanwhile
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("read output directory: %w", err)
		}
		segments = append(segments, segment{segmentPath(path, start), start, start + info.Size()})
	}
	slices.SortFunc(segments, func(a, b segment) int { return strings.Compare(a.path, b.path) })
	slices.Sort(indexes)
	return segments, indexes, nil
}

// nextBase returns the first position of a live file after output up to a position.
func nextBase(end int64) int64 {
	if end == 0 {
		return 0
	}
	return (end/fileSpan + 1) * fileSpan
}

// identity tells a file from another one that later gets its inode number.
type identity struct {
	inode uint64
	born  int64 // Unix time in nanoseconds; 0 if the file system does not tell
}

func identify(f *os.File) (identity, error) {
	var x unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_BTIME, &x); err != nil {
		return identity{}, fmt.Errorf("identify output file: %w", err)
	}
	id := identity{inode: x.Ino}
	if x.Mask&unix.STATX_BTIME != 0 {
		id.born = x.Btime.Sec*1e9 + int64(x.Btime.Nsec)
	}
	return id, nil
}

// firstData returns the offset of the first byte that is not in a hole.
func firstData(f *os.File) (int64, error) {
	at, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) { // nothing but a hole
		info, err := f.Stat()
		if err != nil {
			return 0, fmt.Errorf("find the end of the hole: %w", err)
		}
		return info.Size(), nil
	}
	if errors.Is(err, unix.EINVAL) { // the file system does not know holes
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("find the end of the hole: %w", err)
	}
	return at, nil
}

func syncDirectory(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
