package restore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/txn"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"go.uber.org/goleak"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/dynast-io/dynast/shared/datadir"
	"github.com/dynast-io/dynast/shared/entry"
	"github.com/dynast-io/dynast/shared/proc"
	"github.com/dynast-io/dynast/shared/store"
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

// snapshotOf returns a snapshot file's content of a store with what is applied.
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

// opened opens what was restored as the first leader would.
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

// nothingLeft wants no trace of a restore that failed.
func nothingLeft(t *testing.T, target string, before int) {
	t.Helper()
	files, err := os.ReadDir(filepath.Dir(target))
	if err != nil || len(files) != before {
		t.Errorf("%d files beside the target, %d before: %v %v", len(files), before, files, err)
	}
}

// otherProgram is a database of bbolt that is not etcd's.
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

// ofLaterEtcd is a database of a format that is not known yet.
func ofLaterEtcd(t *testing.T, snapshot []byte) []byte {
	path := write(t, snapshot[:len(snapshot)-sha256.Size])
	db, err := bolt.Open(path, 0o600, nil)
	if err == nil {
		err = db.Update(func(tx *bolt.Tx) error {
			return tx.Bucket(schema.Meta.Name()).Put(schema.MetaStorageVersionName, []byte("9.9.0"))
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
		"damage under a fresh sum": {withSum(flipped(db, 2*os.Getpagesize()+8)), ErrDamaged, ""},
		"of a later etcd":          {ofLaterEtcd(t, good), store.ErrNewer, "9.9"},
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

func TestPlacesThatAreNone(t *testing.T) {
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
		"no regular file":           options("/dev/null", ""),
		"--bump-revision":           marked,
		"cluster.json in it":        options(file, own),
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

// place is an empty directory that is alone in its parent.
func place(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "place")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestTargets(t *testing.T) {
	file := write(t, snapshotOf(t, put("a", "1")))
	ok := func(target string, beside int) {
		t.Helper()
		res, err := Restore(t.Context(), options(file, target))
		if err != nil || res.Keys != 1 || res.Revision != 2 {
			t.Fatalf("%+v %v", res, err)
		}
		if err := opened(t, target).Close(); err != nil {
			t.Error(err)
		}
		nothingLeft(t, res.DataDir, beside)
		if left, _ := filepath.Glob(filepath.Join(target, stageMark+"*")); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
	ok(filepath.Join(t.TempDir(), "a", "b", "data"), 1)

	made := filepath.Join(place(t), "made")
	if err := os.Mkdir(made, 0o750); err != nil {
		t.Fatal(err)
	}
	ok(made, 1)
	if info, err := os.Stat(made); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("mode %v %v", info.Mode(), err)
	}

	link := filepath.Join(place(t), "link")
	behind := place(t)
	if err := os.Symlink(behind, link); err != nil {
		t.Fatal(err)
	}
	ok(link, 1)

	// The root of a file system has this in it, and cannot be replaced.
	volume := place(t)
	if err := os.Mkdir(filepath.Join(volume, "lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	var before, after unix.Stat_t
	if err := unix.Stat(volume, &before); err != nil {
		t.Fatal(err)
	}
	ok(volume, 1)
	if err := unix.Stat(volume, &after); err != nil || before.Ino != after.Ino {
		t.Errorf("the volume was replaced: %v", err)
	}
}

// A restore that was killed leaves its stage; the next one removes it, and not
// that of one that is at work.
func TestStagesOfOthers(t *testing.T) {
	parent := t.TempDir()
	dead, alive := filepath.Join(parent, ".data.restore-1"), filepath.Join(parent, ".data.restore-2")
	for _, dir := range []string{dead, alive} {
		if err := os.MkdirAll(filepath.Join(dir, "slots", "1"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	lock, err := proc.TryLock(filepath.Join(alive, "cluster.lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	if _, err := Restore(t.Context(), options(write(t, snapshotOf(t, put("a", "1"))), filepath.Join(parent, "data"))); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dead); !os.IsNotExist(err) {
		t.Errorf("the stage of one that was killed is still there: %v", err)
	}
	if _, err := os.Stat(alive); err != nil {
		t.Errorf("the stage of one at work: %v", err)
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

// What is etcd's cluster's, and not data, is left behind.
func TestWhatIsLeftBehind(t *testing.T) {
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
	for what, content := range map[string][]byte{"text": []byte("hello"), "another program's": otherProgram(t), "damaged": flipped(good, 2*os.Getpagesize()+8)} {
		if st, err := Status(write(t, content)); !errors.Is(err, ErrNoSnapshot) && !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %+v %v", what, st, err)
		}
	}
}

// etcdDir is the directory of an etcd as a crash leaves it: what was written is
// in its log only.
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
	// A write that a crash cut short was acknowledged to nobody.
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

	// The database of one with more entries than the log of the other.
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
