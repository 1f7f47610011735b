package restore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/txn"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"go.uber.org/goleak"
	"golang.org/x/crypto/bcrypt"
	"google.golang.org/protobuf/proto"

	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/replica/store"
	"github.com/dynast-io/dynast/shared/rules/entry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// apply applies requests to a store, one after the other.
func apply(t *testing.T, st *store.Store, requests ...*pb.InternalRaftRequest) {
	t.Helper()
	for _, r := range requests {
		r.Header = &pb.RequestHeader{ID: 1}
		data, err := proto.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		res, err := st.Apply(entry.Entry{Index: st.Applied().Index + 1, Epoch: 7, Data: data})
		if err != nil || res.Err != nil {
			t.Fatal(r, err, res.Err)
		}
	}
}

func put(key, value string) *pb.InternalRaftRequest {
	return &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte(key), Value: []byte(value)}}
}

// snapshotOf returns the content of a snapshot file of a store with some applied requests.
func snapshotOf(t *testing.T, requests ...*pb.InternalRaftRequest) []byte {
	t.Helper()
	st, err := store.Open(store.Config{Dir: t.TempDir(), ClusterID: 5, MemberID: 1, BcryptCost: bcrypt.MinCost})
	if err != nil {
		t.Fatal(err)
	}
	apply(t, st, requests...)
	var b bytes.Buffer
	snap, err := st.Snapshot()
	if err == nil {
		_, err = snap.WriteTo(&b)
		err = errors.Join(err, snap.Close(), st.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return withSum(b.Bytes())
}

func withSum(db []byte) []byte {
	sum := sha256.Sum256(db)
	return append(bytes.Clone(db), sum[:]...)
}

func write(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func options(source, target string) Options {
	return Options{Source: source, DataDir: target, Client: "127.0.0.1:2379", Member: "127.0.0.1:7400"}
}

// opened opens the restored directory as the first leader would.
func opened(t *testing.T, target string) *store.Store {
	t.Helper()
	dir, err := datadir.Open(target, false)
	if err != nil {
		t.Fatal(err)
	}
	s, err := dir.ReadSuccession()
	if err != nil || s.Slot != 1 || s.Epoch != 1 {
		t.Fatalf("%+v %v", s, err)
	}
	st, err := store.Open(store.Config{Dir: dir.Slot(1).DBDir(), ClusterID: s.ClusterID, MemberID: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	if st.Applied() != begin {
		t.Errorf("the database is at %s", st.Applied())
	}
	return st
}

// nothingLeft checks that a failed restore left nothing behind.
func nothingLeft(t *testing.T, target string, before int) {
	t.Helper()
	files, err := os.ReadDir(filepath.Dir(target))
	if err != nil || len(files) != before {
		t.Errorf("%d files beside the target, %d before: %v %v", len(files), before, files, err)
	}
}

// otherProgram is a bbolt database of another program.
func otherProgram(t *testing.T) []byte {
	path := filepath.Join(t.TempDir(), "other")
	db, err := bolt.Open(path, 0o600, nil)
	if err == nil {
		err = db.Update(func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("users")); return err })
		err = errors.Join(err, db.Close())
	}
	raw, err2 := os.ReadFile(path)
	if err = errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return raw
}

// ofVersion is a snapshot whose database has another format version. Empty is the version of an
// etcd before 3.6.
func ofVersion(t *testing.T, snapshot []byte, version string) []byte {
	t.Helper()
	path := write(t, snapshot[:len(snapshot)-sha256.Size])
	db, err := bolt.Open(path, 0o600, nil)
	if err == nil {
		err = db.Update(func(tx *bolt.Tx) error {
			if version == "" {
				return tx.Bucket(schema.Meta.Name()).Delete(schema.MetaStorageVersionName)
			}
			return tx.Bucket(schema.Meta.Name()).Put(schema.MetaStorageVersionName, []byte(version))
		})
		err = errors.Join(err, db.Close())
	}
	raw, err2 := os.ReadFile(path)
	if err = errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return withSum(raw)
}

func flipped(b []byte, at int) []byte {
	c := bytes.Clone(b)
	c[at] ^= 0x40
	return c
}

// damaged changes the kind of every page except the first two. Some of the pages are free.
func damaged(db []byte) []byte {
	db = bytes.Clone(db)
	for at := 2 * os.Getpagesize(); at+16 < len(db); at += os.Getpagesize() {
		db[at+8] ^= 0x40
	}
	return db
}

func TestNonsenseIsRefused(t *testing.T) {
	good := snapshotOf(t, put("a", "1"), put("b", "2"))
	db := good[:len(good)-sha256.Size]
	for what, c := range map[string]struct {
		content []byte
		want    error
		text    string
	}{
		"an empty file":            {nil, ErrNoSnapshot, "empty"},
		"text":                     {[]byte("hello"), ErrNoSnapshot, "size"},
		"noise with a sum":         {withSum(bytes.Repeat([]byte("noise..."), 8<<10)), ErrNoSnapshot, "bbolt"},
		"a changed snapshot":       {flipped(good, len(good)/2), ErrDamaged, "SHA-256"},
		"a changed sum":            {flipped(good, len(good)-1), ErrDamaged, "SHA-256"},
		"the first half":           {good[:len(good)/2], ErrNoSnapshot, ""},
		"without its last bytes":   {good[:len(good)-5], ErrNoSnapshot, "cut off"},
		"without its sum":          {db, ErrNoSnapshot, "--skip-hash-check"},
		"another program's":        {withSum(otherProgram(t)), ErrNoSnapshot, `bucket "key"`},
		"damage under a fresh sum": {withSum(damaged(db)), ErrDamaged, ""},
		"of a later etcd":          {ofVersion(t, good, "9.9.0"), store.ErrNewer, "9.9"},
	} {
		target := filepath.Join(t.TempDir(), "data")
		source := write(t, c.content)
		_, err := Restore(t.Context(), options(source, target))
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), source) {
			t.Errorf("%s: %v", what, err)
		}
		nothingLeft(t, target, 0)
	}
}

// The data of earlier versions of etcd is migrated to this version's format.
func TestEarlierVersions(t *testing.T) {
	good := snapshotOf(t, put("a", "1"))
	for _, version := range []string{"", "3.6.0"} {
		target := filepath.Join(t.TempDir(), "data")
		res, err := Restore(t.Context(), options(write(t, ofVersion(t, good, version)), target))
		if err != nil || res.Keys != 1 {
			t.Fatalf("%q: %+v %v", version, res, err)
		}
		st := opened(t, target)
		if st.Version() != "3.7.0" {
			t.Errorf("%q became %q", version, st.Version())
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestInvalidSourcesAndTargets(t *testing.T) {
	etcd := t.TempDir()
	if err := os.MkdirAll(filepath.Join(etcd, "member", "snap"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(etcd, "member", "snap", "db"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(t.TempDir(), "own")
	file := write(t, snapshotOf(t, put("a", "1")))
	if _, err := Restore(t.Context(), options(file, own)); err != nil {
		t.Fatal(err)
	}
	withWAL := options(file, "")
	withWAL.WALDir = t.TempDir()
	marked := options(file, "")
	marked.MarkCompacted = true
	for text, o := range map[string]Options{
		"no such file":              options(filepath.Join(etcd, "none"), ""),
		"member/snap/db":            options(t.TempDir(), ""),
		"--wal-dir":                 options(etcd, ""),
		"has no log":                withWAL,
		"dynast up":                 options(own, ""),
		"not a regular file":        options("/dev/null", ""),
		"--bump-revision":           marked,
		"contains claims.json":      options(file, own),
		"not a directory":           options(file, file),
		"not a directory\x00parent": options(file, filepath.Join(file, "data")),
	} {
		if o.DataDir == "" {
			o.DataDir = filepath.Join(t.TempDir(), "data")
			defer nothingLeft(t, o.DataDir, 0)
		}
		text, _, _ = strings.Cut(text, "\x00")
		if _, err := Restore(t.Context(), o); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s to %s: %v, want %q", o.Source, o.DataDir, err, text)
		}
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	target := filepath.Join(t.TempDir(), "data")
	if _, err := Restore(ctx, options(write(t, snapshotOf(t, put("a", "1"))), target)); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	nothingLeft(t, target, 0)
}

// The data of etcd's cluster is left out.
func TestClusterDataIsLeftOut(t *testing.T) {
	alarm := func(id uint64, kind pb.AlarmType) *pb.InternalRaftRequest {
		return &pb.InternalRaftRequest{Alarm: &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: id, Alarm: kind}}
	}
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file := write(t, snapshotOf(t, put("a", "1"),
		&pb.InternalRaftRequest{AuthUserAdd: &pb.AuthUserAddRequest{Name: "root", HashedPassword: base64.StdEncoding.EncodeToString(hash), Options: &authpb.UserAddOptions{}}},
		&pb.InternalRaftRequest{AuthRoleAdd: &pb.AuthRoleAddRequest{Name: "root"}},
		&pb.InternalRaftRequest{AuthUserGrantRole: &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}},
		&pb.InternalRaftRequest{AuthEnable: &pb.AuthEnableRequest{}},
		&pb.InternalRaftRequest{Authenticate: &pb.InternalAuthenticateRequest{Name: "root", Password: "secret", SimpleToken: "abcdefghijklmnop_zzzzzzzz"}},
		alarm(77, pb.AlarmType_NOSPACE), alarm(78, pb.AlarmType_CORRUPT)))
	target := filepath.Join(t.TempDir(), "data")
	res, err := Restore(t.Context(), options(file, target))
	if err != nil || !res.Corrupt || !res.AuthEnabled || res.Users != 1 {
		t.Fatalf("%+v %v", res, err)
	}
	st := opened(t, target)
	alarms := st.Alarms().Get(pb.AlarmType_NONE)
	if len(alarms) != 1 || alarms[0].Alarm != pb.AlarmType_CORRUPT {
		t.Errorf("alarms: %v", alarms)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(store.Path(filepath.Join(target, "slots", "1")), 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.View(func(tx *bolt.Tx) error {
		if n := count(tx, tokens); n != 0 {
			t.Errorf("%d logins came along", n)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestBumpRevision(t *testing.T) {
	file := write(t, snapshotOf(t, put("a", "1"), put("a", "2")))
	for _, mark := range []bool{false, true} {
		o := options(file, filepath.Join(t.TempDir(), "data"))
		o.BumpRevision, o.MarkCompacted = 1000, mark
		res, err := Restore(t.Context(), o)
		if err != nil || res.Revision != 1003 || mark != (res.CompactRevision == 1003) {
			t.Fatalf("mark %v: %+v %v", mark, res, err)
		}
		st := opened(t, o.DataDir)
		now, _, err := txn.Range(t.Context(), st.Logger(), st.KV(), &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}, false)
		if err != nil || now.Header.Revision != 1003 || len(now.Kvs) != 1 || string(now.Kvs[0].Value) != "2" || now.Kvs[0].ModRevision != 3 {
			t.Errorf("mark %v: %v %v", mark, now, err)
		}
		_, _, err = txn.Range(t.Context(), st.Logger(), st.KV(), &pb.RangeRequest{Key: []byte("a"), Revision: 2}, false)
		if mark != (err != nil) {
			t.Errorf("mark %v: at an old revision: %v", mark, err)
		}
		apply(t, st, put("b", "1"))
		if st.Revision() != 1004 {
			t.Errorf("mark %v: revision %d", mark, st.Revision())
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}
	o := options(file, filepath.Join(t.TempDir(), "data"))
	o.BumpRevision = 1 << 63
	if _, err := Restore(t.Context(), o); err == nil || !strings.Contains(err.Error(), "--bump-revision") {
		t.Errorf("%v", err)
	}
	nothingLeft(t, o.DataDir, 0)
}

func TestSkipHashCheck(t *testing.T) {
	good := snapshotOf(t, put("a", "1"))
	for what, content := range map[string][]byte{"a copied database": good[:len(good)-sha256.Size], "a wrong sum": flipped(good, len(good)-1)} {
		o := options(write(t, content), filepath.Join(t.TempDir(), "data"))
		o.SkipHashCheck = true
		if res, err := Restore(t.Context(), o); err != nil || res.Keys != 1 {
			t.Errorf("%s: %+v %v", what, res, err)
		}
	}
}

func TestStatus(t *testing.T) {
	good := snapshotOf(t, put("a", "1"), put("b", "2"), put("b", "3"))
	with, err := Status(write(t, good))
	if err != nil || with.Revision != 4 || with.TotalKey != 3 || with.Hash == 0 || with.TotalSize != int64(len(good)-sha256.Size) || with.Version != "3.7.0" {
		t.Errorf("%+v %v", with, err)
	}
	without, err := Status(write(t, good[:len(good)-sha256.Size]))
	if err != nil || without != with {
		t.Errorf("without its sum: %+v, %+v, %v", without, with, err)
	}
	if other, err := Status(write(t, snapshotOf(t, put("a", "1"), put("b", "2"), put("b", "4")))); err != nil || other.Hash == with.Hash {
		t.Errorf("of another one: %+v %v", other, err)
	}
	for what, content := range map[string][]byte{"text": []byte("hello"), "another program's": otherProgram(t), "damaged": damaged(good)} {
		if st, err := Status(write(t, content)); !errors.Is(err, ErrNoSnapshot) && !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %+v %v", what, st, err)
		}
	}
}
