package store

import (
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/proc"
)

// Deadlines is the file in which a leader records when each lease ends, for its
// successor.
//
// The file is mapped into memory. The page cache outlives a process: the successor reads
// what the leader wrote, and nothing has to be synced. The page cache does not outlive the
// host, but neither does the clock. Deadlines are times of CLOCK_BOOTTIME, which all
// processes of a host share and which goes on while the host is suspended. The file says
// in which boot it was written, and is ignored in another.
//
// The first page is the header. After it come records of two fields of 8 bytes each: the
// id of a lease and its deadline. A record with deadline 0 is free. Each field is written
// by a single store instruction. So if the writer dies between any two of them, no record
// mixes two leases.
//
// Only the leader writes, and it holds cluster.lock. A nil *Deadlines records nothing.
type Deadlines struct {
	file *os.File
	mem  []byte // the whole reserved range; the file backs only its first `bytes`
	// bytes is the size of the file as far as this process knows.
	bytes  int64
	origin uint64 // boot, clock and cluster in which the file must have been written (see originHash)

	free []int // free record numbers
	// stored is called after each change of the file, if it is set.
	stored func()
}

const (
	deadlinesMagic  = uint64(0x64796e6c65617365) // "dynlease"; a change of the format needs another value
	deadlinesHeader = 4096
	recordBytes     = 16
	// deadlinesChunk is how much the file grows at a time: 4096 records.
	deadlinesChunk = 64 << 10
	// maxDeadlines bounds the address space. Leases beyond it are not recorded; after a
	// takeover they have their full time again.
	maxDeadlines = 4 << 20

	magicAt, originAt, appliedAt = 0, 8, 16
)

// OpenDeadlines opens the file, and creates it if it is missing.
func OpenDeadlines(path string, clusterID uint64) (*Deadlines, error) {
	origin, err := originHash(clusterID)
	if err != nil {
		return nil, fmt.Errorf("open lease deadlines: %w", err)
	}
	return openDeadlines(path, origin)
}

// originHash is a hash of the boot, the clock and the cluster.
func originHash(clusterID uint64) (uint64, error) {
	boot, err := proc.BootID()
	if err != nil {
		return 0, err
	}
	clock, err := os.Readlink("/proc/self/ns/time") // a time namespace may have another CLOCK_BOOTTIME
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%s\x00%s\x00%d", boot, clock, clusterID)
	return h.Sum64(), nil
}

func openDeadlines(path string, origin uint64) (*Deadlines, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lease deadlines: %w", err)
	}
	d := &Deadlines{file: f, origin: origin}
	err = d.measure()
	if err == nil {
		err = d.grow(max(d.bytes, deadlinesHeader+deadlinesChunk)) // also fills the holes that a copy of the file may have
	}
	if err == nil {
		d.mem, err = unix.Mmap(int(f.Fd()), 0, deadlinesHeader+maxDeadlines*recordBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open lease deadlines in %s: %w", path, err), f.Close())
	}
	return d, nil
}

// measure reads the size of the file. Another process may have made it larger.
func (d *Deadlines) measure() error {
	info, err := d.file.Stat()
	if err != nil {
		return err
	}
	chunks := max(info.Size()-deadlinesHeader, 0) / deadlinesChunk
	d.bytes = deadlinesHeader + min(chunks*deadlinesChunk, maxDeadlines*recordBytes)
	return nil
}

// grow enlarges the file and allocates disk space for all of it. A write to a page without disk
// space would end the process.
func (d *Deadlines) grow(bytes int64) error {
	err := unix.Fallocate(int(d.file.Fd()), 0, 0, bytes)
	if errors.Is(err, unix.EOPNOTSUPP) {
		_, err = d.file.WriteAt(make([]byte, bytes-d.bytes), d.bytes)
	}
	if err == nil {
		d.bytes = bytes
	}
	return err
}

// Close unmaps the file. A leader never calls it, because it uses the file until its process
// ends.
func (d *Deadlines) Close() error {
	if d == nil {
		return nil
	}
	return errors.Join(unix.Munmap(d.mem), d.file.Close())
}

func (d *Deadlines) word(at int) *uint64 { return (*uint64)(unsafe.Pointer(&d.mem[at])) }

func (d *Deadlines) load(at int) uint64 { return atomic.LoadUint64(d.word(at)) }

// store writes a value. It leaves a page clean that already has it.
func (d *Deadlines) store(at int, v uint64) {
	if d.load(at) != v {
		atomic.StoreUint64(d.word(at), v)
		if d.stored != nil {
			d.stored()
		}
	}
}

func (d *Deadlines) records() int { return int(d.bytes-deadlinesHeader) / recordBytes }

func recordAt(n int) (id, deadline int) {
	at := deadlinesHeader + n*recordBytes
	return at, at + 8
}

// noRecord means that a lease has no record.
const noRecord = -1

// recorded is the content of a record.
type recorded struct {
	id       int64
	deadline time.Duration
	record   int
}

// begin reads the file as the previous leader left it. It returns the deadlines and the index
// up to which that leader had applied entries. It empties the file and returns nothing if the
// file is from another boot or another cluster, or is ahead of what is applied here after a
// loss.
func (d *Deadlines) begin(appliedHere uint64) (left []recorded, applied uint64) {
	if d == nil {
		return nil, 0
	}
	_ = d.measure() // on failure the rest is not read, and those leases get their full time again
	valid := d.load(magicAt) == deadlinesMagic && d.load(originAt) == d.origin && d.load(appliedAt) <= appliedHere
	if !valid {
		d.store(magicAt, 0)
		d.store(appliedAt, 0)
	}
	d.free = d.free[:0]
	for n := d.records() - 1; n >= 0; n-- {
		idAt, deadlineAt := recordAt(n)
		if !valid {
			d.store(deadlineAt, 0)
		}
		if deadline := d.load(deadlineAt); deadline != 0 {
			left = append(left, recorded{id: int64(d.load(idAt)), deadline: time.Duration(deadline), record: n})
		} else {
			d.free = append(d.free, n)
		}
	}
	applied = d.load(appliedAt)
	d.store(originAt, d.origin)
	d.store(magicAt, deadlinesMagic)
	return left, applied
}

// set records when a lease ends, in its own record or in a new one, and returns the record's
// number. If there is no space for a new record, it returns noRecord.
func (d *Deadlines) set(record int, id int64, deadline time.Duration) int {
	if d == nil {
		return noRecord
	}
	if record == noRecord {
		if record = d.take(); record == noRecord {
			return noRecord
		}
		idAt, _ := recordAt(record)
		d.store(idAt, uint64(id))
	}
	_, deadlineAt := recordAt(record)
	d.store(deadlineAt, uint64(max(deadline, 1)))
	return record
}

// take returns a free record, or noRecord.
func (d *Deadlines) take() int {
	if len(d.free) == 0 {
		first, bytes := d.records(), d.bytes+deadlinesChunk
		if bytes > int64(len(d.mem)) || d.grow(bytes) != nil {
			return noRecord
		}
		for n := d.records() - 1; n >= first; n-- {
			d.free = append(d.free, n)
		}
	}
	n := d.free[len(d.free)-1]
	d.free = d.free[:len(d.free)-1]
	return n
}

// drop frees a record.
func (d *Deadlines) drop(record int) {
	if d != nil && record != noRecord {
		_, deadlineAt := recordAt(record)
		d.store(deadlineAt, 0)
		d.free = append(d.free, record)
	}
}

// setApplied records the entry up to which the file is complete.
func (d *Deadlines) setApplied(index uint64) {
	if d != nil {
		d.store(appliedAt, index)
	}
}
