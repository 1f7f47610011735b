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

// ErrUnsafe means that other users can write to a directory or own it.
var ErrUnsafe = errors.New("unsafe directory")

// Dir is an open data directory. It holds no descriptor. Several goroutines may use it.
type Dir struct {
	path     string // absolute, without symbolic links
	ownerUID int

	mu sync.Mutex // held while writing a state file
}

// Open opens the data directory for a member of the cluster. If create is set and it is
// missing, Open makes it with mode 0700. Open refuses a path that is not a directory, and with
// ErrUnsafe a directory that belongs to another user or that others can write to.
func Open(path string, create bool) (*Dir, error) {
	if create {
		if err := makeDurably(path); err != nil {
			return nil, fmt.Errorf("cannot create data directory %s (data_dir, --data-dir): %w", path, err)
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

// OpenForReading opens a data directory for a process that only reads, run by any user.
func OpenForReading(path string) (*Dir, error) {
	full, err := filepath.Abs(path)
	if err == nil {
		// Resolve links, so that there is one name for the directory.
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

// Path returns the absolute path of the directory.
func (d *Dir) Path() string { return d.path }

// ClusterLock returns the path of the lock file that the leader holds for life.
func (d *Dir) ClusterLock() string { return filepath.Join(d.path, "cluster.lock") }

// LeaseDeadlines returns the path of the file in which a leader records when leases end; see
// store.Deadlines.
func (d *Dir) LeaseDeadlines() string { return filepath.Join(d.path, "lease-deadlines") }

// Services is the directory of what belongs to the user's services.
func (d *Dir) Services() string { return filepath.Join(d.path, "services") }

// PKI returns the directory of the cluster's certificate authority.
func (d *Dir) PKI() string { return filepath.Join(d.path, "pki") }

const slotsName = "slots"

// Slot is the directory of one replica. A process owns it while it holds the lock file Lock.
type Slot struct {
	Number int // from 1
	path   string
}

// Slot returns a slot, whether or not it exists.
func (d *Dir) Slot(n int) Slot {
	return Slot{Number: n, path: filepath.Join(d.path, slotsName, strconv.Itoa(n))}
}

// Slots returns the numbers of the existing slots, in order.
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
		// Ignore foreign names and names like "007".
		if err == nil && n > 0 && strconv.Itoa(n) == e.Name() && e.IsDir() {
			slots = append(slots, n)
		}
	}
	slices.Sort(slots)
	return slots, nil
}

// Path returns the slot's directory.
func (s Slot) Path() string { return s.path }

// LogDir returns the directory of the slot's log.
func (s Slot) LogDir() string { return filepath.Join(s.path, "log") }

// DBDir returns the directory of the slot's database.
func (s Slot) DBDir() string { return s.path }

// Lock returns the path of the lock file that the slot's owner holds.
func (s Slot) Lock() string { return filepath.Join(s.path, "slot.lock") }

// Meta returns the path of the file that says who wrote the slot; see SlotMeta.
func (s Slot) Meta() string { return filepath.Join(s.path, "slot.json") }

// Make makes the slot's directory durably if it is missing. If a power loss removed the
// directory, the log in it would be lost.
func (s Slot) Make() error {
	for _, dir := range []string{filepath.Dir(s.path), s.path} {
		if err := makeDurably(dir); err != nil {
			return fmt.Errorf("make slot %d: %w", s.Number, err)
		}
	}
	return nil
}
