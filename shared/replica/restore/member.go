package restore

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"go.uber.org/zap"

	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/replica/store"
)

// MemberOptions say how a copied database becomes the data directory of an etcd.
type MemberOptions struct {
	// Database is a whole database file without a checksum at its end. It is not changed.
	Database string
	// DataDir is etcd's data directory to make. It must not exist.
	DataDir string
	// Name is the member's name, PeerURL its address for others, and Token the name of the
	// cluster (etcd's --initial-cluster-token).
	Name, PeerURL, Token string
	Logger               *zap.Logger
}

// Member makes the data directory of an etcd that is the only member of a new cluster. Clients see the
// same data in it: keys, revisions, leases, users, roles and alarms. Member compares them before it
// returns. If it fails, there is no data directory.
func Member(ctx context.Context, o MemberOptions) (err error) {
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make the data of an etcd in %s: %w", o.DataDir, err), os.RemoveAll(o.DataDir))
		}
	}()
	if err := dropTokens(o.Database); err != nil {
		return err
	}
	err = snapshot.NewV3(o.Logger).Restore(snapshot.RestoreConfig{
		SnapshotPath: o.Database, OutputDataDir: o.DataDir, Name: o.Name, PeerURLs: []string{o.PeerURL},
		InitialCluster: o.Name + "=" + o.PeerURL, InitialClusterToken: o.Token, SkipHashCheck: true,
	})
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	made := filepath.Join(o.DataDir, "member", "snap", "db")
	if err := sameContent(o.Database, made); err != nil {
		return err
	}
	return syncAll(made, filepath.Dir(made), filepath.Join(o.DataDir, "member", "wal"), filepath.Join(o.DataDir, "member"), o.DataDir, filepath.Dir(o.DataDir))
}

// dropTokens removes the logins, which are valid in a dynast of one host only.
func dropTokens(path string) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, NoFreelistSync: true, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		if tx.Bucket(tokens) == nil {
			return nil
		}
		return tx.DeleteBucket(tokens)
	})
	return errors.Join(err, db.Close())
}

// content are the buckets that hold what clients see.
var content = [][]byte{schema.Key.Name(), schema.Lease.Name(), schema.Alarm.Name(), schema.Auth.Name(), schema.AuthUsers.Name(), schema.AuthRoles.Name()}

// sameContent compares what clients see in two databases.
func sameContent(a, b string) error {
	before, after := make(chan sums, 1), sums{}
	go func() { before <- sumsOf(a) }()
	after = sumsOf(b)
	want := <-before
	if err := errors.Join(want.err, after.err); err != nil {
		return err
	}
	return want.same(after)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// contentSums returns the number of rows of each bucket and a checksum of them.
func contentSums(path string) ([]sum, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return nil, err
	}
	var out []sum
	err = db.View(func(tx *bolt.Tx) error {
		for _, name := range content {
			s := sum{}
			if b := tx.Bucket(name); b != nil {
				c := b.Cursor()
				for k, v := c.First(); k != nil; k, v = c.Next() {
					s.rows++
					s.crc = crc32.Update(s.crc, castagnoli, k)
					s.crc = crc32.Update(s.crc, castagnoli, v)
				}
			}
			out = append(out, s)
		}
		return nil
	})
	return out, errors.Join(err, db.Close())
}

// sum describes the content of a bucket.
type sum struct {
	rows int
	crc  uint32
}

// Single makes the data directory of a single host from that of an engine that was stopped. It is a
// Restore that also compares what clients see in both databases. If it fails, there is no data
// directory.
func Single(ctx context.Context, o Options) (res *Result, err error) {
	o.KeepAlarms, o.Ours = true, true
	// The source is read while it is copied; it does not change.
	before := make(chan sums, 1)
	go func() { before <- sumsOf(filepath.Join(o.Source, "member", "snap", "db")) }()
	res, err = Restore(ctx, o)
	want := <-before
	if err = errors.Join(err, want.err); err != nil {
		return nil, err
	}
	dir, err := datadir.Open(res.DataDir, false)
	if err != nil {
		return nil, err
	}
	if res.Replayed == 0 { // otherwise the engine was killed, and its database lacks what its log has
		got := sumsOf(store.Path(dir.Slot(1).DBDir()))
		if err = got.err; err == nil {
			err = want.same(got)
		}
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(res.DataDir))
	}
	return res, nil
}

// sums are the checksums of the buckets of a database.
type sums struct {
	all []sum
	err error
}

func sumsOf(path string) sums {
	all, err := contentSums(path)
	return sums{all, err}
}

func (s sums) same(other sums) error {
	for i, name := range content {
		if s.all[i] != other.all[i] {
			return fmt.Errorf("%w: the copy has another content in the bucket %q", ErrDamaged, name)
		}
	}
	return nil
}
