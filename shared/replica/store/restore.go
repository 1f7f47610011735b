package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"sync/atomic"

	assertions "go.etcd.io/etcd/client/pkg/v3/verify"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"google.golang.org/protobuf/encoding/protowire"
)

// restoring is the backend that etcd's key-value store sees while it opens.
//
// The store reads all revisions then, in their order, and builds its index of keys from them. If
// the keys come in no particular order, nearly every step down the tree misses the processor's
// cache. And the store decodes and copies every value, which the index does not need.
//
// So restoring hands the revisions out sorted by key, and without their values. Another
// goroutine reads and sorts them meanwhile, in runs of a bounded size. The store needs the
// revisions of one key in their order, and takes the revision that comes last for the newest of
// all. Both hold in sorted runs whose newest revision stays at the end.
type restoring struct {
	backend.Backend
	runBytes int
	done     atomic.Bool // the store is open

	runs chan *run // nil until the store begins to read
	stop chan struct{}
	run  *run // its items are those that the store has not got yet
	// The store uses these only until it asks for more.
	keys, values [][]byte
}

const (
	// restoreRunBytes bounds the data of a run. In a large run, revisions that follow each other
	// are close together in the tree.
	restoreRunBytes = 8 << 20
	// restoreBatch is the number of revisions that are read from bbolt at a time.
	restoreBatch = 1000
)

func newRestoring(be backend.Backend, runBytes int) *restoring {
	return &restoring{Backend: be, runBytes: runBytes, stop: make(chan struct{})}
}

// close makes this an ordinary backend. The store must be open, or have failed to open.
func (r *restoring) close() {
	r.done.Store(true)
	close(r.stop)
	if r.runs != nil {
		for range r.runs { // wait for the goroutine that reads
		}
	}
}

func (r *restoring) ReadTx() backend.ReadTx {
	tx := r.Backend.ReadTx()
	if r.done.Load() {
		return tx
	}
	return restoringTx{ReadTx: tx, r: r}
}

type restoringTx struct {
	backend.ReadTx
	r *restoring
}

// UnsafeRange returns the next revisions, limit of them unless there are no more. While a store
// opens, it reads several revisions at a time for this purpose only, from the first to the last.
func (t restoringTx) UnsafeRange(bucket backend.Bucket, key, end []byte, limit int64) (keys, values [][]byte) {
	if bucket.ID() != schema.Key.ID() || limit <= 1 {
		return t.ReadTx.UnsafeRange(bucket, key, end, limit)
	}
	r := t.r
	if r.runs == nil {
		r.runs = make(chan *run) // one run is read while the store gets the other one
		go r.read(t.ReadTx, bytes.Clone(key), bytes.Clone(end))
	}
	return r.next(int(limit))
}

func (r *restoring) next(limit int) (keys, values [][]byte) {
	r.keys, r.values = r.keys[:0], r.values[:0]
	for len(r.keys) < limit {
		if r.run == nil || len(r.run.items) == 0 {
			var ok bool
			if r.run, ok = <-r.runs; !ok {
				break
			}
			if r.run.err != nil {
				panic(r.run.err) // Open expects that of etcd's code
			}
		}
		n := min(limit-len(r.keys), len(r.run.items))
		for _, it := range r.run.items[:n] {
			key, message := r.run.revision(it)
			r.keys, r.values = append(r.keys, key), append(r.values, message)
		}
		r.run.items = r.run.items[n:]
	}
	return r.keys, r.values
}

// read reads all revisions between two keys of the bucket and sends them in sorted runs.
func (r *restoring) read(tx backend.ReadTx, from, end []byte) {
	defer close(r.runs)
	defer func() {
		if p := recover(); p != nil {
			r.send(&run{err: fmt.Errorf("read the revisions: %v", p)})
		}
	}()
	s := &run{}
	for {
		keys, messages := tx.UnsafeRange(schema.Key, from, end, restoreBatch)
		for i := range keys {
			s.add(keys[i], messages[i])
			if len(s.data) < r.runBytes {
				continue
			}
			next := &run{data: make([]byte, 0, cap(s.data)), items: make([]item, 0, cap(s.items))}
			if !r.send(s) { // it belongs to the store now
				return
			}
			s = next
		}
		if len(keys) < restoreBatch {
			r.send(s)
			return
		}
		from = append(append(from[:0], keys[len(keys)-1]...), 0)
	}
}

// send sorts a run and sends it. It returns false if the store does not open any more.
func (r *restoring) send(s *run) bool {
	if !assertions.IsVerificationEnabled(assertRevisions) {
		s.sort()
	}
	select {
	case r.runs <- s:
		return true
	case <-r.stop:
		return false
	}
}

// assertRevisions is the value of ETCD_VERIFY with which the store panics if revisions are not in
// their order. etcd has it in its tests.
const assertRevisions = "assert"

// run is some of the revisions.
type run struct {
	// data holds for each revision the length of its key in the bucket, that key, and the
	// message without the value.
	data  []byte
	items []item
	err   error
}

// item is one revision.
type item struct {
	prefix             uint64 // of the part of the user's key in which the keys of a run differ
	start, end         uint32 // in data
	keyStart, keyBytes uint32 // of the user's key in data
}

// add appends a revision.
func (s *run) add(key, message []byte) {
	it := item{start: uint32(len(s.data))}
	s.data = append(s.data, byte(len(key)))
	s.data = append(s.data, key...)
	for rest := message; len(rest) > 0; {
		number, kind, n := protowire.ConsumeField(rest)
		if n < 0 {
			panic(protowire.ParseError(n))
		}
		field := rest[:n]
		rest = rest[n:]
		if kind == protowire.BytesType && number == valueField {
			continue
		}
		s.data = append(s.data, field...)
		if kind == protowire.BytesType && number == keyField {
			content, _ := protowire.ConsumeBytes(field[protowire.SizeTag(number):])
			it.keyBytes = uint32(len(content))
			it.keyStart = uint32(len(s.data)) - it.keyBytes
		}
	}
	it.end = uint32(len(s.data))
	s.items = append(s.items, it)
}

// Fields of mvccpb.KeyValue.
const keyField, valueField = 1, 5

// revision returns the key in the bucket, and the message.
func (s *run) revision(it item) (key, message []byte) {
	b := s.data[it.start:it.end:it.end]
	n := 1 + int(b[0])
	return b[1:n:n], b[n:]
}

func (s *run) key(it item) []byte { return s.data[it.keyStart:][:it.keyBytes] }

// sort orders the revisions by the user's key, and those of one key by age. Only the newest of all
// stays at the end.
func (s *run) sort() {
	if len(s.items) < 2 {
		return
	}
	items := s.items[:len(s.items)-1]
	common := s.key(items[0])
	for _, it := range items {
		common = common[:commonPrefix(common, s.key(it))]
	}
	for i, it := range items {
		var b [8]byte
		copy(b[:], s.key(it)[len(common):])
		items[i].prefix = binary.BigEndian.Uint64(b[:])
	}
	slices.SortFunc(items, func(a, b item) int {
		if a.prefix != b.prefix {
			return cmp.Compare(a.prefix, b.prefix)
		}
		if c := bytes.Compare(s.key(a), s.key(b)); c != 0 {
			return c
		}
		return cmp.Compare(a.start, b.start)
	})
	// Another processor will read the data in the new order.
	data := make([]byte, 0, len(s.data))
	for i, it := range s.items {
		start := uint32(len(data))
		data = append(data, s.data[it.start:it.end]...)
		s.items[i].start, s.items[i].end = start, uint32(len(data))
	}
	s.data = data
}

// commonPrefix returns the length of the longest common prefix.
func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
