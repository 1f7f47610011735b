package store

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

// readAll returns everything that a key-value store has, at each of its revisions.
func readAll(t *testing.T, kv mvcc.KV) string {
	t.Helper()
	var out bytes.Buffer
	fmt.Fprintln(&out, kv.Rev())
	for rev := kv.Rev(); ; rev-- {
		res, err := kv.Range(t.Context(), []byte{0}, []byte{0xff}, mvcc.RangeOptions{Rev: rev})
		if errors.Is(err, mvcc.ErrCompacted) {
			return out.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&out, rev, res.Count)
		if rev%50 == 0 || rev > kv.Rev()-50 {
			for _, kv := range res.KVs {
				fmt.Fprintln(&out, kv)
			}
		}
	}
}

// attached is a lessor that only remembers the leases of keys.
type attached struct {
	lease.FakeLessor
	leases map[string]lease.LeaseID
}

func (a *attached) Attach(id lease.LeaseID, items []lease.LeaseItem) error {
	for _, it := range items {
		a.leases[it.Key] = id
	}
	return nil
}

// The index is the same whether etcd's store reads the revisions itself or gets them sorted.
func TestRestoreOrder(t *testing.T) {
	dir := t.TempDir()
	filled(t, dir)
	t.Setenv("ETCD_VERIFY", "none") // etcd's assertions insist on the order of the revisions
	be := backend.NewDefaultBackend(zap.NewNop(), Path(dir))
	defer be.Close()
	restore := func(b backend.Backend) (content string, leases map[string]lease.LeaseID) {
		l := &attached{leases: map[string]lease.LeaseID{}}
		kv := mvcc.NewStore(zap.NewNop(), b, l, mvcc.StoreConfig{})
		defer kv.Close()
		if r, ok := b.(*restoring); ok {
			r.close()
		}
		return readAll(t, kv), l.leases
	}
	want, wantLeases := restore(be)
	if len(wantLeases) == 0 {
		t.Fatal("no key has a lease")
	}
	for _, runBytes := range []int{1, 500, 20_000, restoreRunBytes} {
		content, leases := restore(newRestoring(be, runBytes))
		if content != want {
			t.Errorf("runs of %d bytes: the content differs", runBytes)
		}
		if fmt.Sprint(leases) != fmt.Sprint(wantLeases) {
			t.Errorf("runs of %d bytes: leases %v, want %v", runBytes, leases, wantLeases)
		}
	}
}

// A run is sorted by key, then by age. Its newest revision is the last. Values are left out.
func TestRunIsSorted(t *testing.T) {
	keys := []string{"a/x", "a/b", "a/", "a/b", "a/bbbbbbbbbz", "a/bbbbbbbbba", "a/a"}
	s := &run{}
	for i, k := range keys {
		message, err := proto.Marshal(&mvccpb.KeyValue{Key: []byte(k), Value: []byte("value"), ModRevision: int64(i), Lease: 7})
		if err != nil {
			t.Fatal(err)
		}
		s.add(fmt.Appendf(nil, "revision%d", i), message)
	}
	s.sort()
	want := []int{2, 1, 3, 5, 4, 0, 6}
	for i, it := range s.items {
		revision, message := s.revision(it)
		var kv mvccpb.KeyValue
		if err := proto.Unmarshal(message, &kv); err != nil {
			t.Fatal(err)
		}
		if n := want[i]; string(revision) != fmt.Sprint("revision", n) || kv.ModRevision != int64(n) || string(kv.Key) != keys[n] || kv.Lease != 7 || kv.Value != nil {
			t.Errorf("item %d is %s, %v, want revision %d", i, revision, &kv, n)
		}
	}
}

// A failure of the goroutine that reads is one of the store that opens, and the goroutine ends.
func TestRestoreReportsAFailedRead(t *testing.T) {
	dir := t.TempDir()
	filled(t, dir)
	be := backend.NewDefaultBackend(zap.NewNop(), Path(dir))
	defer be.Close()
	r := newRestoring(failing{be}, 1000)
	defer r.close()
	tx := r.ReadTx()
	defer func() {
		if p := recover(); p == nil || !bytes.Contains(fmt.Append(nil, p), []byte("unreadable")) {
			t.Errorf("the store got the panic %v", p)
		}
	}()
	for {
		nextOfAll(tx)
	}
}

// A store that fails to open leaves no goroutine behind (see TestMain).
func TestRestoreIsGivenUp(t *testing.T) {
	dir := t.TempDir()
	filled(t, dir)
	be := backend.NewDefaultBackend(zap.NewNop(), Path(dir))
	defer be.Close()
	r := newRestoring(be, 1000)
	nextOfAll(r.ReadTx())
	r.close()
}

// nextOfAll asks for revisions as a store does.
func nextOfAll(tx backend.ReadTx) {
	low, high := mvcc.NewRevBytes(), mvcc.NewRevBytes()
	low = mvcc.RevToBytes(mvcc.Revision{Main: 1}, low)
	high = mvcc.RevToBytes(mvcc.Revision{Main: math.MaxInt64, Sub: math.MaxInt64}, high)
	tx.UnsafeRange(schema.Key, low, high, 100)
}

// failing is a backend that cannot read more than the first revisions.
type failing struct{ backend.Backend }

func (f failing) ReadTx() backend.ReadTx { return failingTx{f.Backend.ReadTx()} }

type failingTx struct{ backend.ReadTx }

func (f failingTx) UnsafeRange(bucket backend.Bucket, key, end []byte, limit int64) (keys, values [][]byte) {
	if key[len(key)-1] == 0 && len(key) > 17 {
		panic("unreadable")
	}
	return f.ReadTx.UnsafeRange(bucket, key, end, limit)
}
