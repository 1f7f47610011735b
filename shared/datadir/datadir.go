package datadir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrUnsafe says that a directory is not this user's alone to write.
var ErrUnsafe = errors.New("unsafe directory")

// Dir is an open data directory. It holds no descriptor, and is safe for use by
// several goroutines.
type Dir struct {
	path     string // absolute, without symbolic links
	ownerUID int

	mu sync.Mutex // one writer of state files at a time
}

// Open opens the data directory for a member of the cluster. With create it is
// made (mode 0700) if it is missing. Refused is what is not a directory, belongs
// to another user, or can be written to by others than its owner (ErrUnsafe).
func Open(path string, create bool) (*Dir, error) {
	if create {
		if err := makeDurably(path); err != nil {
			return nil, fmt.Errorf("data directory %s cannot be made (data_dir, --data-dir): %w", path, err)
		}
	}
	d, err := OpenForReading(path)
	if err != nil {
		return nil, err
	}
	if uid := os.Geteuid(); uid != d.ownerUID {
		return nil, fmt.Errorf("data directory %s: %w: it belongs to uid %d and this process runs as uid %d; run as its owner", d.path, ErrUnsafe, d.ownerUID, uid)
	}
	if create {
		if err := makeDurably(filepath.Join(d.path, slotsName)); err != nil {
			return nil, fmt.Errorf("data directory: %w", err)
		}
	}
	return d, nil
}

// OpenForReading opens a data directory for a process that only looks, whoever
// runs it.
func OpenForReading(path string) (*Dir, error) {
	full, err := filepath.Abs(path)
	if err == nil {
		// One name for it, whichever link led here.
		full, err = filepath.EvalSymlinks(full)
	}
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(full, &st); err != nil {
		return nil, fmt.Errorf("data directory: %w", &os.PathError{Op: "stat", Path: full, Err: err})
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil, fmt.Errorf("data directory %s (data_dir, --data-dir): %w", full, unix.ENOTDIR)
	}
	if st.Mode&0o022 != 0 {
		return nil, fmt.Errorf("data directory %s: %w: its mode %04o lets others than its owner write; chmod go-w %s", full, ErrUnsafe, st.Mode&0o7777, full)
	}
	return &Dir{path: full, ownerUID: int(st.Uid)}, nil
}

// Path is the directory's absolute path.
func (d *Dir) Path() string { return d.path }

// ClusterLock is the lock file that the leader holds for life.
func (d *Dir) ClusterLock() string { return filepath.Join(d.path, "cluster.lock") }

// PKI is the directory of the cluster's certificate authority.
func (d *Dir) PKI() string { return filepath.Join(d.path, "pki") }

const slotsName = "slots"

// Slot is the directory of one replica. A process owns it while it holds the
// lock of Lock.
type Slot struct {
	Number int // from 1
	path   string
}

// Slot returns a slot, whether or not it exists.
func (d *Dir) Slot(n int) Slot {
	return Slot{Number: n, path: filepath.Join(d.path, slotsName, strconv.Itoa(n))}
}

// Slots lists the numbers of the slots that exist, in order.
func (d *Dir) Slots() ([]int, error) {
	entries, err := os.ReadDir(filepath.Join(d.path, slotsName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list slots: %w", err)
	}
	var slots []int
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		// Foreign names and "007" are not ours.
		if err == nil && n > 0 && strconv.Itoa(n) == e.Name() && e.IsDir() {
			slots = append(slots, n)
		}
	}
	slices.Sort(slots)
	return slots, nil
}

// Path is the slot's directory.
func (s Slot) Path() string { return s.path }

// LogDir is the directory of the slot's log.
func (s Slot) LogDir() string { return filepath.Join(s.path, "log") }

// DBDir is the directory of the slot's database.
func (s Slot) DBDir() string { return s.path }

// Lock is the lock file of the process that owns the slot.
func (s Slot) Lock() string { return filepath.Join(s.path, "slot.lock") }

// Meta is the file that says who wrote the slot, see SlotMeta.
func (s Slot) Meta() string { return filepath.Join(s.path, "slot.json") }

// Make makes the slot's directory if it is missing, durably: a log in it is worth
// nothing after a power loss if the directory is not there.
func (s Slot) Make() error {
	for _, dir := range []string{filepath.Dir(s.path), s.path} {
		if err := makeDurably(dir); err != nil {
			return fmt.Errorf("make slot %d: %w", s.Number, err)
		}
	}
	return nil
}
