package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"google.golang.org/protobuf/proto"

	"github.com/dynast-io/dynast/shared/prove/testkit"
	"github.com/dynast-io/dynast/shared/rules/entry"
)

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(Config{Dir: dir, ClusterID: 7, MemberID: 3})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// reopen closes s and opens its directory again.
func reopen(t testing.TB, s *Store) *Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, s.cfg.Dir)
}

func data(t testing.TB, r *pb.InternalRaftRequest) []byte {
	t.Helper()
	r.Header = &pb.RequestHeader{ID: 1}
	b, err := proto.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func put(t testing.TB, key, value string) []byte {
	return data(t, &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte(key), Value: []byte(value)}})
}

// feed applies data as the next entry.
func feed(t testing.TB, s *Store, epoch uint64, d []byte) *pb.ResponseHeader {
	t.Helper()
	res, err := s.Apply(entry.Entry{Index: s.Applied().Index + 1, Epoch: epoch, Data: d})
	if err != nil {
		t.Fatal(err)
	}
	if res == nil {
		return nil
	}
	if res.Err != nil {
		t.Fatalf("entry %s: %v", s.Applied(), res.Err)
	}
	if h, ok := res.Resp.(interface{ GetHeader() *pb.ResponseHeader }); ok {
		return h.GetHeader()
	}
	return nil
}

func get(t testing.TB, s *Store, key string) string {
	t.Helper()
	r, err := s.KV().Range(t.Context(), []byte(key), nil, mvcc.RangeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.KVs) == 0 {
		return ""
	}
	return string(r.KVs[0].Value)
}

func TestEmpty(t *testing.T) {
	s := open(t, t.TempDir())
	if !s.Applied().IsZero() || !s.Durable().IsZero() {
		t.Fatalf("applied %s, durable %s", s.Applied(), s.Durable())
	}
	if s.Revision() != 1 {
		t.Fatalf("revision %d", s.Revision())
	}
}

// TestUnfinishedDefragIsRemoved: the process was killed during a Defrag.
func TestUnfinishedDefragIsRemoved(t *testing.T) {
	dir := t.TempDir()
	left := Path(dir) + ".tmp.1234567"
	if err := os.WriteFile(left, []byte("half of a database"), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestApplyCounts(t *testing.T) {
	s := open(t, t.TempDir())
	feed(t, s, 1, nil)
	feed(t, s, 1, put(t, "a", "1"))
	feed(t, s, 2, nil)
	feed(t, s, 2, put(t, "a", "2"))
	want := entry.Position{Epoch: 2, Index: 4}
	if s.Applied() != want {
		t.Fatalf("applied %s", s.Applied())
	}
	s.Commit()
	if s.Durable() != want {
		t.Fatalf("durable %s", s.Durable())
	}
	feed(t, s, 3, nil) // writes nothing: not durable before something else is
	if s.Durable() != want {
		t.Fatalf("durable %s", s.Durable())
	}
	s = reopen(t, s)
	if want = (entry.Position{Epoch: 3, Index: 5}); s.Applied() != want {
		t.Fatalf("applied after reopening %s", s.Applied())
	}
	if got := get(t, s, "a"); got != "2" {
		t.Fatalf("a is %q", got)
	}
}

func TestApplySkipsAndRefuses(t *testing.T) {
	s := open(t, t.TempDir())
	feed(t, s, 5, nil)
	feed(t, s, 5, put(t, "a", "1"))
	res, err := s.Apply(entry.Entry{Index: 2, Epoch: 5, Data: put(t, "a", "again")})
	if res != nil || err != nil || get(t, s, "a") != "1" {
		t.Fatalf("an applied entry was applied again: %v %v", res, err)
	}
	version, err := proto.Marshal(&pb.InternalRaftRequest{Header: &pb.RequestHeader{ID: 1}})
	if err != nil {
		t.Fatal(err)
	}
	for name, e := range map[string]entry.Entry{
		"gap":             {Index: 4, Epoch: 5, Data: put(t, "a", "2")},
		"older epoch":     {Index: 3, Epoch: 4, Data: put(t, "a", "2")},
		"garbage":         {Index: 3, Epoch: 5, Data: []byte("\xff\xff\xff")},
		"unknown request": {Index: 3, Epoch: 5, Data: version},
	} {
		if _, err := s.Apply(e); !errors.Is(err, ErrBadEntry) {
			t.Errorf("%s: %v", name, err)
		}
	}
	feed(t, s, 5, put(t, "a", "3")) // still usable
	if got := get(t, s, "a"); got != "3" {
		t.Fatalf("a is %q", got)
	}
}

// A failed request is an answer, and its entry counts.
func TestApplyFailedRequest(t *testing.T) {
	s := open(t, t.TempDir())
	s.Promote(0)
	res, err := s.Apply(entry.Entry{Index: 1, Epoch: 1, Data: data(t, &pb.InternalRaftRequest{
		Put: &pb.PutRequest{Key: []byte("a"), Lease: 42}})})
	if err != nil || !errors.Is(res.Err, lease.ErrLeaseNotFound) {
		t.Fatalf("%+v %v", res, err)
	}
	if s.Applied().Index != 1 {
		t.Fatalf("applied %s", s.Applied())
	}
}

// TestRefusedWritesUseNoQuota: clients that keep trying while the store is full do not keep it
// full.
func TestRefusedWritesUseNoQuota(t *testing.T) {
	s := open(t, t.TempDir())
	feed(t, s, 1, data(t, &pb.InternalRaftRequest{Alarm: &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_NOSPACE}}))
	s.Commit()
	before := s.Used()
	for range 100 {
		e := entry.Entry{Index: s.Applied().Index + 1, Epoch: 1, Data: put(t, "k", strings.Repeat("x", 10<<10))}
		if res, err := s.Apply(e); err != nil || res.Err == nil {
			t.Fatalf("a write of a store that is full: %+v, %v", res, err)
		}
	}
	if used := s.Used(); used > before+10<<10 {
		t.Errorf("%d bytes are used, %d were before 100 writes that were refused", used, before)
	}
}

func TestRangesInTransactions(t *testing.T) {
	s := open(t, t.TempDir())
	feed(t, s, 1, put(t, "a", "1"))
	txn := data(t, &pb.InternalRaftRequest{Txn: &pb.TxnRequest{Success: []*pb.RequestOp{
		{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("b")}}},
		{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("a")}}},
	}}})
	for _, leading := range []bool{false, true} {
		if leading {
			s.Promote(0)
		}
		res, err := s.Apply(entry.Entry{Index: s.Applied().Index + 1, Epoch: 1, Data: txn})
		if err != nil || (res != nil) != leading {
			t.Fatalf("leading %v: %v, %v", leading, res, err)
		}
		if leading && len(res.Resp.(*pb.TxnResponse).Responses[1].GetResponseRange().Kvs) != 1 {
			t.Fatalf("the key is missing: %v", text(res))
		}
	}
}

func TestIdleWritesNothing(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Config{Dir: dir, CommitInterval: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	feed(t, s, 1, put(t, "a", "1"))
	testkit.Eventually(t, "the commit", func() bool { return s.Durable() == s.Applied() })
	before := fileContent(t, dir)
	commits := func() int64 { return s.be.(interface{ Commits() int64 }).Commits() }
	at := commits()
	feed(t, s, 2, nil)
	// Let a few commit intervals pass. There is no event to wait for when nothing happens.
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 50 {
		<-tick.C
	}
	if commits() != at || !bytes.Equal(before, fileContent(t, dir)) {
		t.Fatalf("an idle store wrote: %d commits", commits()-at)
	}
	s.Commit()
	if s.Durable() != s.Applied() {
		t.Fatalf("durable %s", s.Durable())
	}
	at = commits()
	s.Commit()
	if commits() != at {
		t.Fatal("nothing to commit, and committed")
	}
}

func TestCommitsBySize(t *testing.T) {
	s, err := Open(Config{Dir: t.TempDir(), CommitInterval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range commitBytes>>20 + 1 {
		feed(t, s, 1, put(t, "a", strings.Repeat("x", 1<<20)))
	}
	if s.Durable().IsZero() || s.Size() < commitBytes {
		t.Fatalf("durable %s, %d bytes", s.Durable(), s.Size())
	}
}

func fileContent(t *testing.T, dir string) []byte {
	b, err := os.ReadFile(Path(dir))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSnapshot(t *testing.T) {
	s := open(t, t.TempDir())
	for i := range 100 {
		feed(t, s, 3, put(t, fmt.Sprint("key", i), strings.Repeat("v", 1000)))
	}
	feed(t, s, 4, nil)
	snap, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	feed(t, s, 4, put(t, "key0", "later"))
	s.Commit()
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "db"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := snap.WriteTo(f)
	if err != nil || n != snap.Size {
		t.Fatalf("%d of %d bytes: %v", n, snap.Size, err)
	}
	if err := errors.Join(f.Close(), snap.Close()); err != nil {
		t.Fatal(err)
	}
	if want := (entry.Position{Epoch: 4, Index: 101}); snap.Position != want {
		t.Fatalf("snapshot at %s", snap.Position)
	}
	copied := open(t, dir)
	if copied.Applied() != snap.Position {
		t.Fatalf("opened at %s", copied.Applied())
	}
	if v := get(t, copied, "key0"); len(v) != 1000 {
		t.Fatalf("key0 is %q", v)
	}
	feed(t, copied, 4, put(t, "key0", "later"))
	a, errA := s.Hash()
	b, errB := copied.Hash()
	if errA != nil || errB != nil || a != b {
		t.Fatalf("hashes %x %x, %v %v", a, b, errA, errB)
	}
}

func TestLeases(t *testing.T) {
	s := open(t, t.TempDir())
	feed(t, s, 1, data(t, &pb.InternalRaftRequest{LeaseGrant: &pb.LeaseGrantRequest{ID: 9, TTL: 1}}))
	feed(t, s, 1, data(t, &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte("a"), Lease: 9}}))
	s = reopen(t, s)
	l := s.Lessor().Lookup(9)
	if l == nil || l.TTL() != minLeaseTTLSeconds || len(l.Keys()) != 1 {
		t.Fatalf("lease after reopening: %+v", l)
	}
	if _, err := s.Lessor().Renew(9); !errors.Is(err, lease.ErrNotPrimary) {
		t.Fatalf("a follower renewed: %v", err)
	}
	s.Promote(time.Hour)
	if r := s.Lessor().Remaining(l); r <= 0 || r > minLeaseTTLSeconds*time.Second {
		t.Fatalf("remaining %s", r)
	}
	s.Demote()
	if _, err := s.Lessor().Renew(9); !errors.Is(err, lease.ErrNotPrimary) {
		t.Fatalf("renewed after Demote: %v", err)
	}
}

func TestCompactionSurvives(t *testing.T) {
	s := open(t, t.TempDir())
	s.Promote(0)
	for i := range 10 {
		feed(t, s, 1, put(t, "a", fmt.Sprint(i)))
	}
	res, err := s.Apply(entry.Entry{Index: 11, Epoch: 1, Data: data(t, &pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: 8}})})
	if err != nil || res.Err != nil {
		t.Fatal(err, res.Err)
	}
	<-res.Physc
	s = reopen(t, s)
	if _, err := s.KV().Range(t.Context(), []byte("a"), nil, mvcc.RangeOptions{Rev: 7}); !errors.Is(err, mvcc.ErrCompacted) {
		t.Fatal(err)
	}
	if get(t, s, "a") != "9" {
		t.Fatal(get(t, s, "a"))
	}
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	feed(t, s, 1, put(t, "a", "1"))
	if _, err := Open(Config{Dir: dir, OpenTimeout: 50 * time.Millisecond}); !errors.Is(err, ErrLocked) {
		t.Fatal(err)
	}
}

// child runs the calling test again in a process of its own with the directory, and checks its
// exit code. Some ends of a store leave goroutines behind that only the end of the process
// stops.
func child(t *testing.T, dir string, code int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "STORE_TEST_CHILD="+dir, "ETCD_VERIFY=none")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != code {
		t.Fatalf("%v\n%s", err, out)
	}
}

const wantedExit = 42

// TestDiskFull: in a process that may write only small files, a commit fails as on a full disk.
func TestDiskFull(t *testing.T) {
	if dir := os.Getenv("STORE_TEST_CHILD"); dir != "" {
		fillDisk(t, dir)
		return
	}
	dir := t.TempDir()
	child(t, dir, wantedExit)
	s := open(t, dir) // what was committed is whole
	if s.Applied() != s.Durable() || s.Applied().Index == 0 {
		t.Fatalf("applied %s, durable %s", s.Applied(), s.Durable())
	}
}

func fillDisk(t *testing.T, dir string) {
	s, err := Open(Config{Dir: dir, OnFatal: func(err error) {
		if errors.Is(err, syscall.EFBIG) {
			os.Exit(wantedExit)
		}
		fmt.Println("not told why:", err)
		os.Exit(1)
	}})
	if err != nil {
		t.Fatal(err)
	}
	limit := syscall.Rlimit{Cur: 4 << 20, Max: 4 << 20}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	for i := range 10000 {
		feed(t, s, 1, put(t, fmt.Sprint(i), strings.Repeat("x", 10000)))
		if i%50 == 49 {
			s.Commit()
		}
	}
}

// TestBroken: a request that makes etcd's code panic ends the store, with a reason. (Such a
// request cannot come from a client, see package api.)
func TestBroken(t *testing.T) {
	if dir := os.Getenv("STORE_TEST_CHILD"); dir != "" {
		breakStore(t, dir)
		return
	}
	dir := t.TempDir()
	child(t, dir, wantedExit)
	s := open(t, dir)
	if s.Applied().Index != 1 || get(t, s, "a") != "1" {
		t.Fatal(s.Applied(), get(t, s, "a"))
	}
}

func breakStore(t *testing.T, dir string) {
	s, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	s.Promote(0)
	feed(t, s, 1, put(t, "a", "1"))
	s.Commit()
	deadly := data(t, &pb.InternalRaftRequest{Txn: &pb.TxnRequest{Success: []*pb.RequestOp{
		{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte{0}}}},
		{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("a"), IgnoreValue: true}}},
	}}})
	for range 2 {
		if _, err := s.Apply(entry.Entry{Index: 2, Epoch: 1, Data: deadly}); !errors.Is(err, ErrBroken) {
			t.Fatal(err)
		}
	}
	if _, err := s.Snapshot(); !errors.Is(err, ErrBroken) {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	os.Exit(wantedExit)
}

// TestApplyRequestIsApply: a decoded request has the same result as its encoding, and an
// invalid one is refused all the same.
func TestApplyRequestIsApply(t *testing.T) {
	decoded, encoded := open(t, t.TempDir()), open(t, t.TempDir())
	for i := range uint64(20) {
		data := put(t, fmt.Sprint("k", i%3), fmt.Sprint(i))
		r := &pb.InternalRaftRequest{}
		if err := proto.Unmarshal(data, r); err != nil {
			t.Fatal(err)
		}
		e := entry.Entry{Index: i + 1, Epoch: 1, Data: data}
		if _, err := decoded.ApplyRequest(e, r); err != nil {
			t.Fatal(err)
		}
		if _, err := encoded.Apply(e); err != nil {
			t.Fatal(err)
		}
	}
	a, _, err := decoded.KV().HashStorage().HashByRev(0)
	b, _, err2 := encoded.KV().HashStorage().HashByRev(0)
	if err != nil || err2 != nil || a.Hash != b.Hash || decoded.Applied() != encoded.Applied() {
		t.Errorf("%v at %s and %v at %s; %v, %v", a, decoded.Applied(), b, encoded.Applied(), err, err2)
	}
	if _, err := decoded.ApplyRequest(entry.Entry{Index: 21, Epoch: 1, Data: []byte{1}}, &pb.InternalRaftRequest{}); !errors.Is(err, ErrBadEntry) {
		t.Errorf("a request without content: %v", err)
	}
}
