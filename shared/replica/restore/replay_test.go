package restore

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/membershippb"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Entries that concern etcd's cluster, and entries of its API v2, have no meaning here.
func TestEntriesOfTheCluster(t *testing.T) {
	v2 := func(method, path string) []byte { // ID = 1, Method = 2, Path = 3, Val = 4 of etcd 3.5's Request
		b := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 7)
		for i, text := range []string{method, path, "{}"} {
			b = protowire.AppendString(protowire.AppendTag(b, protowire.Number(i+2), protowire.BytesType), text)
		}
		return b
	}
	v3 := func(r *pb.InternalRaftRequest) []byte {
		r.Header = &pb.RequestHeader{ID: 1}
		b, err := proto.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	change := raftpb.EntryConfChange
	for what, c := range map[string]struct {
		e    *raftpb.Entry
		kept bool
	}{
		"the first of a term":   {&raftpb.Entry{}, false},
		"a change of members":   {&raftpb.Entry{Type: &change, Data: v3(put("a", "1"))}, false},
		"attributes, API v2":    {&raftpb.Entry{Data: v2("PUT", "/0/members/8e9e05c52164694d/attributes")}, false},
		"the clock, API v2":     {&raftpb.Entry{Data: v2("SYNC", "")}, false},
		"attributes":            {&raftpb.Entry{Data: v3(&pb.InternalRaftRequest{ClusterMemberAttrSet: &membershippb.ClusterMemberAttrSetRequest{}})}, false},
		"the cluster's version": {&raftpb.Entry{Data: v3(&pb.InternalRaftRequest{ClusterVersionSet: &membershippb.ClusterVersionSetRequest{}})}, false},
		"a put":                 {&raftpb.Entry{Data: v3(put("a", "1"))}, true},
		"one that is not known": {&raftpb.Entry{Data: v3(&pb.InternalRaftRequest{})}, true}, // refused when it is applied
	} {
		if got := request(c.e); (got != nil) != c.kept {
			t.Errorf("%s: kept %v", what, got != nil)
		}
	}
}

// etcdDir is the directory of an etcd as a crash leaves it: its writes are only in its log.
func etcdDir(t *testing.T, puts int) string {
	t.Helper()
	c := embed.NewConfig()
	c.Dir = filepath.Join(t.TempDir(), "default.etcd")
	c.LogLevel, c.LogOutputs = "error", []string{"/dev/null"}
	c.BackendBatchInterval, c.BackendBatchLimit = time.Hour, 1<<20
	local := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	c.ListenClientUrls, c.ListenPeerUrls = []url.URL{local}, []url.URL{local}
	e, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	<-e.Server.ReadyNotify()
	for i := range puts {
		if _, err := e.Server.Put(t.Context(), &pb.PutRequest{Key: fmt.Appendf(nil, "k%03d", i), Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
	}
	return copyOf(t, c.Dir)
}

func copyOf(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy.etcd")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

func theLog(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "member", "wal", "*.wal"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	return files[0]
}

func TestEtcdsDirectory(t *testing.T) {
	dir := etcdDir(t, 50)
	restored := func(o Options) int64 {
		t.Helper()
		res, err := Restore(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%+v", res)
		return res.Keys
	}
	target := func() string { return filepath.Join(t.TempDir(), "data") }
	if n := restored(options(dir, target())); n != 50 {
		t.Errorf("%d keys", n)
	}

	elsewhere := options(copyOf(t, dir), target())
	elsewhere.WALDir = filepath.Join(t.TempDir(), "wal")
	if err := os.Rename(filepath.Join(elsewhere.Source, "member", "wal"), elsewhere.WALDir); err != nil {
		t.Fatal(err)
	}
	if n := restored(elsewhere); n != 50 {
		t.Errorf("with its log elsewhere: %d keys", n)
	}

	raw, err := os.ReadFile(theLog(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	last, middle := bytes.LastIndex(raw, []byte("k049")), bytes.Index(raw, []byte("k025"))
	if last < 0 || middle < 0 {
		t.Fatal("the log does not have the keys")
	}
	// A write that a crash cut off was not acknowledged to anybody.
	torn := copyOf(t, dir)
	if err := os.WriteFile(theLog(t, torn), raw[:last], 0o600); err != nil {
		t.Fatal(err)
	}
	if n := restored(options(torn, target())); n != 49 {
		t.Errorf("with a torn end: %d keys", n)
	}
	refused := func(what, dir string, text string) {
		t.Helper()
		to := target()
		if _, err := Restore(t.Context(), options(dir, to)); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", what, err)
		}
		nothingLeft(t, to, 0)
	}
	changed := copyOf(t, dir)
	if err := os.WriteFile(theLog(t, changed), flipped(raw, middle), 0o600); err != nil {
		t.Fatal(err)
	}
	refused("a log that was changed", changed, "crc mismatch")

	newer := copyOf(t, dir)
	if err := os.WriteFile(filepath.Join(newer, "member", "snap", fmt.Sprintf("%016x.snap.db", 1<<20)), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused("a database that was not put in place", newer, "start this etcd once more")

	// The database of one etcd has more entries than the log of the other.
	longer := copyOf(t, dir)
	res := copyOf(t, dir)
	db := filepath.Join(longer, "member", "snap", "db")
	b, err := bolt.Open(db, 0o600, nil)
	if err == nil {
		err = b.Update(func(tx *bolt.Tx) error {
			return tx.Bucket(schema.Meta.Name()).Put(schema.MetaConsistentIndexKeyName, []byte{0, 0, 0, 0, 0, 1, 0, 0})
		})
		err = errors.Join(err, b.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	refused("a log that ends before the database", longer, "ends at entry")
	for _, f := range []string{theLog(t, res)} {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	refused("without a log", res, "log")
}

func TestEtcdThatRuns(t *testing.T) {
	dir := etcdDir(t, 1)
	f, err := os.Open(filepath.Join(dir, "member", "snap", "db"))
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX) // as bbolt does
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	target := filepath.Join(t.TempDir(), "data")
	if _, err := Restore(t.Context(), options(dir, target)); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "stop it") {
		t.Errorf("%v", err)
	}
	nothingLeft(t, target, 0)
}
