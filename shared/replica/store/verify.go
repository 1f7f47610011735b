package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/server/v3/storage/schema"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"
)

// Verify walks a whole database file and returns ErrCorrupt if bbolt or etcd would panic on its
// content. Open does the same before anything else. Verify waits up to timeout for another
// process to release the file (ErrLocked).
func Verify(path string, timeout time.Duration) error {
	if err := verify(path, timeout); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	return nil
}

// verify walks a whole database file before it is opened, and returns ErrCorrupt if bbolt
// or etcd would fail on its content. They would panic in goroutines where nobody can
// recover, or read beyond the end of the file, which is a fatal signal. A missing file is
// fine.
//
// The file is locked meanwhile, because a file that is being written looks damaged.
func verify(path string, timeout time.Duration) (err error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := lockShared(f, timeout); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return err // empty: its creation was interrupted, and bbolt starts over
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map %s: %w", path, err)
	}
	defer func() { _ = unix.Munmap(data) }()
	if err := guarded(func() error { return walk(data) }); err != nil {
		return fmt.Errorf("%s: %w: %w", path, ErrCorrupt, err)
	}
	return nil
}

// lockShared takes a shared lock on the file, for which it waits while bbolt holds its own.
func lockShared(f *os.File, timeout time.Duration) error {
	const poll = 5 * time.Millisecond
	for deadline := time.Now().Add(timeout); ; time.Sleep(poll) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case err == unix.EINTR:
		case err != unix.EWOULDBLOCK:
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		case time.Now().After(deadline):
			return fmt.Errorf("%s: %w", f.Name(), ErrLocked)
		}
	}
}

// bbolt's file format: pages with a header and a table of elements, in the byte order of all
// machines that dynast runs on. See bbolt's internal/common.
const (
	pageHeaderBytes = 16 // id uint64, flags uint16, count uint16, overflow uint32
	elementBytes    = 16 // branch: pos, ksize uint32, page uint64; leaf: flags, pos, ksize, vsize uint32
	bucketBytes     = 16 // root page uint64, sequence uint64
	metaBytes       = 64
	metaMagic       = 0xED0CDAED
	metaVersion     = 2

	flagBranch   = 1
	flagLeaf     = 2
	flagFreelist = 16

	leafIsBucket = 1
	noFreelist   = ^uint64(0)

	maxDepth = 64 // of a tree; a billion pages need a depth below 10
)

var le = binary.LittleEndian

type meta struct {
	pageBytes             uint64
	root, freelist, limit uint64 // limit: the first page that does not exist
	txid                  uint64
}

// readMeta reads the content of a meta page. ok is false if the page is not whole.
func readMeta(page []byte) (m meta, ok bool) {
	if len(page) < pageHeaderBytes+metaBytes {
		return m, false
	}
	b := page[pageHeaderBytes:][:metaBytes]
	h := fnv.New64a()
	h.Write(b[:56])
	if le.Uint32(b) != metaMagic || le.Uint32(b[4:]) != metaVersion || le.Uint64(b[56:]) != h.Sum64() {
		return m, false
	}
	return meta{
		pageBytes: uint64(le.Uint32(b[8:])), root: le.Uint64(b[16:]),
		freelist: le.Uint64(b[32:]), limit: le.Uint64(b[40:]), txid: le.Uint64(b[48:]),
	}, true
}

// walk checks the state that bbolt would open: the younger whole one of the two meta pages, and
// every page that can be reached from it.
func walk(data []byte) error {
	m, ok := readMeta(data)
	if !ok {
		// The page size is in the page that cannot be read. Try all sizes that occur.
		for size := 1 << 10; size <= 16<<10 && !ok; size *= 2 {
			if len(data) > size {
				m, ok = readMeta(data[size:])
				ok = ok && m.pageBytes == uint64(size)
			}
		}
	} else if m2, ok2 := readMeta(data[min(uint64(len(data)), m.pageBytes):]); ok2 && m2.txid > m.txid {
		m = m2
	}
	size := uint64(len(data))
	switch {
	case !ok:
		return errors.New("no valid meta page")
	case m.pageBytes < 1<<10 || m.pageBytes > 64<<10:
		return fmt.Errorf("invalid page size of %d bytes", m.pageBytes)
	case m.limit > size/m.pageBytes:
		return fmt.Errorf("the meta page says %d pages, but the file has only %d in its %d bytes", m.limit, size/m.pageBytes, size)
	}
	w := &walker{data: data, meta: m, seen: make([]uint64, m.limit/64+1)}
	if m.freelist != noFreelist {
		if err := w.checkFreelist(); err != nil {
			return err
		}
	}
	return w.tree(m.root, bounds{}, bucketOfBuckets, 0)
}

// walker checks that each page has the content that others expect, and is used only once.
type walker struct {
	data []byte
	meta meta
	seen []uint64 // a bit per page; several goroutines set bits
}

// page returns a page with its overflow pages, and marks them as used.
func (w *walker) page(id uint64) ([]byte, error) {
	if id < 2 || id >= w.meta.limit {
		return nil, fmt.Errorf("page %d does not exist, there are %d", id, w.meta.limit)
	}
	p := w.data[id*w.meta.pageBytes:][:w.meta.pageBytes]
	overflow := uint64(le.Uint32(p[12:]))
	if le.Uint64(p) != id || overflow >= w.meta.limit-id {
		return nil, fmt.Errorf("the header of page %d says page %d with %d overflow pages", id, le.Uint64(p), overflow)
	}
	for i := id; i <= id+overflow; i++ {
		if !w.claim(i) {
			return nil, fmt.Errorf("page %d is used twice", i)
		}
	}
	return w.data[id*w.meta.pageBytes:][:(1+overflow)*w.meta.pageBytes], nil
}

// claim marks a page as used. It returns false if the page was used already.
func (w *walker) claim(id uint64) bool {
	bit := uint64(1) << (id % 64)
	return atomic.OrUint64(&w.seen[id/64], bit)&bit == 0
}

// checkFreelist also marks the free pages as used, because nothing else may refer to them.
func (w *walker) checkFreelist() error {
	p, err := w.page(w.meta.freelist)
	if err != nil {
		return fmt.Errorf("free list: %w", err)
	}
	n, from := uint64(le.Uint16(p[10:])), uint64(pageHeaderBytes)
	if n == 0xffff { // the count did not fit into 16 bits
		n, from = le.Uint64(p[from:]), from+8
	}
	if le.Uint16(p[8:]) != flagFreelist || n > (uint64(len(p))-from)/8 {
		return fmt.Errorf("page %d is not a free list", w.meta.freelist)
	}
	for i := range n {
		if id := le.Uint64(p[from+8*i:]); id < 2 || id >= w.meta.limit || !w.claim(id) {
			return fmt.Errorf("page %d of %d is in the free list, but does not exist or is used", id, w.meta.limit)
		}
	}
	return nil
}

// bounds limits the keys of a page: at least low and below high. nil means no limit.
type bounds struct{ low, high []byte }

// bucketKind is the kind of content of a bucket.
type bucketKind int

const (
	bucketOfBuckets bucketKind = iota
	bucketOfRevisions
	bucketOfMessages
	bucketOfNumbers
	bucketOfOther
)

func kindOf(bucket []byte) bucketKind {
	switch string(bucket) {
	case string(schema.Key.Name()):
		return bucketOfRevisions
	case string(schema.Lease.Name()), string(schema.AuthUsers.Name()), string(schema.AuthRoles.Name()):
		return bucketOfMessages
	case string(schema.Meta.Name()):
		return bucketOfNumbers
	}
	return bucketOfOther
}

func (w *walker) tree(id uint64, b bounds, kind bucketKind, depth int) error {
	if depth > maxDepth {
		return errors.New("the tree is too deep")
	}
	p, err := w.page(id)
	if err != nil {
		return err
	}
	if err := w.node(p, b, kind, depth); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

// node checks a page of a tree. A small bucket has no page of its own; its node is the value of
// an element.
func (w *walker) node(p []byte, b bounds, kind bucketKind, depth int) error {
	n, flags := int(le.Uint16(p[10:])), le.Uint16(p[8:])
	if n*elementBytes > len(p)-pageHeaderBytes {
		return fmt.Errorf("%d elements do not fit into %d bytes", n, len(p))
	}
	switch flags {
	case flagBranch:
		return w.branch(p, n, b, kind, depth)
	case flagLeaf:
		return w.leaf(p, n, b, kind, depth)
	}
	return fmt.Errorf("invalid page flags %#x", flags)
}

func (w *walker) branch(p []byte, n int, b bounds, kind bucketKind, depth int) error {
	if n == 0 {
		return errors.New("a branch page has no elements")
	}
	key := func(i int) ([]byte, error) {
		at := pageHeaderBytes + i*elementBytes
		return slice(p, at, le.Uint32(p[at:]), le.Uint32(p[at+4:]))
	}
	// children holds for each child its page and the bounds of its keys.
	type child struct {
		page uint64
		bounds
	}
	children := make([]child, n)
	for i := range children {
		k, err := key(i)
		if err != nil {
			return err
		}
		if i > 0 {
			if bytes.Compare(children[i-1].low, k) >= 0 || b.high != nil && bytes.Compare(k, b.high) >= 0 {
				return fmt.Errorf("key %d is out of order", i)
			}
			children[i-1].high = k
		}
		children[i] = child{le.Uint64(p[pageHeaderBytes+i*elementBytes+8:]), bounds{k, b.high}}
	}
	check := func(i int) error { return w.tree(children[i].page, children[i].bounds, kind, depth+1) }
	if kind == bucketOfRevisions && depth == revisionsDepth {
		return parallel(n, check)
	}
	for i := range children {
		if err := check(i); err != nil {
			return err
		}
	}
	return nil
}

// revisionsDepth is the depth of the root page of the bucket with the revisions, which is nearly
// the whole file: that of the root page of all buckets is 0, if it is a leaf, as in all of etcd's
// files.
const revisionsDepth = 1

// parallel calls f with 0 to n-1, on all processors. It returns the error for the lowest number,
// out of those that were called: after an error it calls f no more.
func parallel(n int, f func(int) error) error {
	errs := make([]error, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				if errs[i] = guarded(func() error { return f(int(i)) }); errs[i] != nil {
					next.Store(int64(n))
				}
			}
		})
	}
	wg.Wait()
	return cmp.Or(errs...)
}

// guarded returns a panic, or a fault of mapped memory, as an error. If the disk cannot read a
// page, the mapped memory faults.
func guarded(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	return f()
}

func (w *walker) leaf(p []byte, n int, b bounds, kind bucketKind, depth int) error {
	last := b.low
	for i := range n {
		at := pageHeaderBytes + i*elementBytes
		pos, ksize, vsize := le.Uint32(p[at+4:]), le.Uint32(p[at+8:]), le.Uint32(p[at+12:])
		key, err := slice(p, at, pos, ksize)
		if err != nil {
			return err
		}
		value, err := slice(p, at, pos+ksize, vsize)
		if err != nil || pos+ksize < pos {
			return fmt.Errorf("element %d lies outside the page", i)
		}
		order := bytes.Compare(last, key)
		if order > 0 || order == 0 && i > 0 || b.high != nil && bytes.Compare(key, b.high) >= 0 {
			return fmt.Errorf("key %d is out of order", i)
		}
		last = key
		if err := w.element(le.Uint32(p[at:]), key, value, kind, depth); err != nil {
			return err
		}
	}
	return nil
}

// element checks one key and value of a leaf. The file has one level of buckets.
func (w *walker) element(flags uint32, key, value []byte, kind bucketKind, depth int) error {
	if (flags == leafIsBucket) != (kind == bucketOfBuckets) || flags > leafIsBucket {
		return fmt.Errorf("key %q has invalid flags %#x", key, flags)
	}
	ok := true
	switch kind {
	case bucketOfBuckets:
		if err := w.bucket(value, kindOf(key), depth); err != nil {
			return fmt.Errorf("bucket %q: %w", key, err)
		}
	case bucketOfRevisions:
		ok = isRevision(key) && isMessage(value)
	case bucketOfMessages:
		ok = isMessage(value)
	case bucketOfNumbers:
		ok = isNumber(key, value)
	}
	if !ok {
		return fmt.Errorf("key %q or its value is invalid in this bucket", key)
	}
	return nil
}

func (w *walker) bucket(value []byte, kind bucketKind, depth int) error {
	if len(value) < bucketBytes {
		return fmt.Errorf("its value of %d bytes is too short", len(value))
	}
	if root := le.Uint64(value); root != 0 {
		return w.tree(root, bounds{}, kind, depth+1)
	}
	if len(value) < bucketBytes+pageHeaderBytes {
		return fmt.Errorf("its value of %d bytes is too short", len(value))
	}
	return w.node(value[bucketBytes:], bounds{}, kind, depth+1)
}

// isRevision reports whether a key is a revision: two numbers with "_" between them, and "t"
// after them for a deletion. Neither number is negative: etcd panics at a negative one, in a
// goroutine of its own.
func isRevision(key []byte) bool {
	const sign = 0x80
	return len(key) >= 17 && len(key) <= 18 && key[8] == '_' && (len(key) == 17 || key[17] == 't') && (key[0]|key[9])&sign == 0
}

// isMessage reports whether b is a valid encoding of a protobuf message, without decoding it.
func isMessage(b []byte) bool {
	for len(b) > 0 {
		_, _, n := protowire.ConsumeField(b)
		if n < 0 {
			return false
		}
		b = b[n:]
	}
	return true
}

// isNumber checks those values of the meta bucket whose length etcd does not check.
func isNumber(key, value []byte) bool {
	switch string(key) {
	case string(schema.MetaConsistentIndexKeyName), string(schema.MetaTermKeyName):
		return len(value) == 8
	case string(schema.ScheduledCompactKeyName), string(schema.FinishedCompactKeyName):
		return isRevision(value)
	}
	return true
}

// slice returns size bytes that begin pos bytes after the element at at.
func slice(p []byte, at int, pos, size uint32) ([]byte, error) {
	from := uint64(at) + uint64(pos)
	if from+uint64(size) > uint64(len(p)) {
		return nil, fmt.Errorf("the element at %d lies outside the page", at)
	}
	return p[from : from+uint64(size)], nil
}
