package restore

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.etcd.io/etcd/server/v3/storage/schema"
)

// FileStatus describes a snapshot file, with the numbers and names of "etcdutl snapshot
// status".
type FileStatus struct {
	// Hash is the CRC-32 (Castagnoli) of all buckets and their content.
	Hash     uint32 `json:"hash"`
	Revision int64  `json:"revision"`
	// TotalKey is the number of stored revisions of keys.
	TotalKey int `json:"totalKey"`
	// TotalSize is the size in bytes of the used part of the file.
	TotalSize int64  `json:"totalSize"`
	Version   string `json:"version"`
}

// Status reads a snapshot file or a copied database. It checks every page. It does not check
// the SHA-256 at the end of the file; a restore does.
func Status(path string) (st FileStatus, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("snapshot %s: %w", path, err)
		}
	}()
	db, err := openReadOnly(path)
	if err != nil {
		return st, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	err = db.View(func(tx *bolt.Tx) error {
		if err := isEtcds(tx); err != nil {
			return err
		}
		st.TotalSize = tx.Size()
		st.Version = string(tx.Bucket(schema.Meta.Name()).Get(schema.MetaStorageVersionName))
		return st.sum(tx)
	})
	return st, err
}

func (st *FileStatus) sum(tx *bolt.Tx) error {
	h := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	err := tx.ForEach(func(name []byte, b *bolt.Bucket) error {
		_, _ = h.Write(name) // a hash does not fail
		return b.ForEach(func(k, v []byte) error {
			_, _ = h.Write(k)
			_, _ = h.Write(v)
			if bytes.Equal(name, schema.Key.Name()) {
				st.Revision = mvcc.BytesToRev(k).Main
				st.TotalKey++
			}
			return nil
		})
	})
	st.Hash = h.Sum32()
	return err
}
