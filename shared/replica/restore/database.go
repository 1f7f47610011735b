package restore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"time"

	bolt "go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/txn"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"google.golang.org/protobuf/proto"

	"github.com/dynast-io/dynast/shared/replica/store"
)

// checkEtcd refuses a database of another program. etcd's database has these buckets from its
// first start on. A store would create missing ones and be empty.
func checkEtcd(path string) error {
	db, err := openReadOnly(path)
	if err != nil {
		return err
	}
	err = db.View(func(tx *bolt.Tx) error { return isEtcds(tx) })
	return errors.Join(err, db.Close())
}

func isEtcds(tx *bolt.Tx) error {
	for _, name := range [][]byte{schema.Key.Name(), schema.Meta.Name()} {
		if tx.Bucket(name) == nil {
			return fmt.Errorf("%w: the bbolt database has no bucket %q, so another program than etcd made it", ErrNoSnapshot, name)
		}
	}
	return nil
}

// openReadOnly opens a file after checking that bbolt can read it without a panic.
func openReadOnly(path string) (*bolt.DB, error) {
	if err := isBolt(path); err != nil {
		return nil, err
	}
	if err := store.Verify(path, 0); err != nil {
		return nil, sourceError(err)
	}
	return bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
}

// isBolt looks for bbolt's magic number in the first two pages, because one of them may be
// damaged.
func isBolt(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, 64<<10)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return err
	}
	if !bytes.Contains(head[:n], []byte{0xed, 0xda, 0x0c, 0xed}) {
		return fmt.Errorf("%w: the file is not a bbolt database", ErrNoSnapshot)
	}
	return nil
}

// describe fills in the content of a store.
func describe(ctx context.Context, st *store.Store, res *Result) error {
	res.Revision = st.Revision()
	keys, err := txn.Count(ctx, st.Logger(), st.KV(), []byte{0}, []byte{0}, 0)
	if err != nil {
		return err
	}
	res.Keys = keys
	res.UsedBytes = st.Used()
	res.Leases = len(st.Lessor().Leases())
	res.AuthEnabled = st.Auth().IsAuthEnabled()
	res.Corrupt = len(st.Alarms().Get(pb.AlarmType_CORRUPT)) > 0
	return nil
}

// tokens is the bucket of the logins to a dynast cluster; see package store. Logins from the
// time of a backup must not become valid again.
var tokens = []byte("dynastTokens")

// makeOurs turns a database into the beginning of a new log. It removes everything that belongs
// to the database's old cluster.
func makeOurs(path string, o Options, res *Result) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, NoFreelistSync: true, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		res.Users, res.Roles = count(tx, schema.AuthUsers.Name()), count(tx, schema.AuthRoles.Name())
		res.Members = members(tx, res.changes)
		for _, name := range [][]byte{schema.Members.Name(), schema.MembersRemoved.Name(), schema.Cluster.Name(), tokens} {
			if err := empty(tx, name); err != nil {
				return err
			}
		}
		if !o.KeepAlarms {
			if err := dropSpaceAlarms(tx); err != nil {
				return err
			}
		}
		if err := bump(tx, o, res); err != nil {
			return err
		}
		meta := tx.Bucket(schema.Meta.Name())
		res.CompactRevision = compacted(meta)
		return errors.Join(
			meta.Delete(schema.MetaConfStateName),
			meta.Put(schema.MetaConsistentIndexKeyName, binary.BigEndian.AppendUint64(nil, begin.Index)),
			meta.Put(schema.MetaTermKeyName, binary.BigEndian.AppendUint64(nil, begin.Epoch)),
		)
	})
	return errors.Join(err, db.Close())
}

func count(tx *bolt.Tx, bucket []byte) int {
	n := 0
	if b := tx.Bucket(bucket); b != nil {
		_ = b.ForEach(func(_, _ []byte) error { n++; return nil })
	}
	return n
}

// members counts the members in the database, after the changes that the log makes.
func members(tx *bolt.Tx, changes map[string]bool) int {
	ids := map[string]bool{}
	if b := tx.Bucket(schema.Members.Name()); b != nil {
		_ = b.ForEach(func(k, _ []byte) error { ids[string(k)] = true; return nil })
	}
	maps.Copy(ids, changes)
	n := 0
	for _, there := range ids {
		if there {
			n++
		}
	}
	return n
}

func empty(tx *bolt.Tx, bucket []byte) error {
	if tx.Bucket(bucket) == nil {
		return nil
	}
	if err := tx.DeleteBucket(bucket); err != nil {
		return err
	}
	_, err := tx.CreateBucket(bucket)
	return err
}

// dropSpaceAlarms removes NOSPACE alarms. The disk is a different one here, and the leader
// checks its free space itself.
func dropSpaceAlarms(tx *bolt.Tx) error {
	b := tx.Bucket(schema.Alarm.Name())
	if b == nil {
		return nil
	}
	var gone [][]byte
	err := b.ForEach(func(k, _ []byte) error {
		var m pb.AlarmMember
		if err := proto.Unmarshal(k, &m); err == nil && m.Alarm == pb.AlarmType_NOSPACE {
			gone = append(gone, append([]byte(nil), k...))
		}
		return nil
	})
	for _, k := range gone {
		err = errors.Join(err, b.Delete(k))
	}
	return err
}

// bump raises the latest revision, as etcdutl does: it adds a row without a key, and marks
// everything before it as compacted.
func bump(tx *bolt.Tx, o Options, res *Result) error {
	if o.BumpRevision == 0 {
		return nil
	}
	latest := res.Revision + int64(o.BumpRevision)
	if latest <= res.Revision {
		return fmt.Errorf("--bump-revision %d is too large: revision %d cannot be raised by that much", o.BumpRevision, res.Revision)
	}
	row := mvcc.RevToBytes(mvcc.Revision{Main: latest}, mvcc.NewRevBytes())
	if err := tx.Bucket(schema.Key.Name()).Put(row, []byte{}); err != nil {
		return err
	}
	res.Revision = latest
	if !o.MarkCompacted {
		return nil
	}
	return tx.Bucket(schema.Meta.Name()).Put(schema.ScheduledCompactKeyName, mvcc.RevToBytes(mvcc.Revision{Main: latest}, mvcc.NewRevBytes()))
}

// compacted is the revision up to which old revisions are removed, or will be when the store is
// opened.
func compacted(meta *bolt.Bucket) int64 {
	rev := int64(0)
	for _, name := range [][]byte{schema.ScheduledCompactKeyName, schema.FinishedCompactKeyName} {
		if v := meta.Get(name); len(v) > 0 {
			rev = max(rev, mvcc.BytesToRev(v).Main)
		}
	}
	return rev
}
