package datadir

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// clusterRecord is cluster.json. Its content never changes in the life of a cluster.
type clusterRecord struct {
	Schema int    `json:"schema"`
	ID     uint64 `json:"id,string"`
}

func (c *clusterRecord) validate() error { return need(c.ID != 0, "no id") }

func (d *Dir) clusterPath() string { return filepath.Join(d.path, "cluster.json") }

// ClusterID returns the id that distinguishes this cluster from every other. The error is
// os.ErrNotExist in a directory that had no leader yet.
func (d *Dir) ClusterID() (uint64, error) {
	var c clusterRecord
	if err := readState(d.clusterPath(), &c); err != nil {
		return 0, fmt.Errorf("read cluster id: %w", err)
	}
	return c.ID, nil
}

// MakeClusterID returns the cluster's id, and makes one at the first start. Only the holder of
// cluster.lock may call it.
func (d *Dir) MakeClusterID() (uint64, error) {
	id, err := d.ClusterID()
	if !errors.Is(err, os.ErrNotExist) {
		return id, err
	}
	var b [8]byte
	rand.Read(b[:])
	c := clusterRecord{Schema: schema, ID: binary.BigEndian.Uint64(b[:]) | 1} // never 0
	if err := writeState(d.clusterPath(), &c); err != nil {
		return 0, fmt.Errorf("write cluster id: %w", err)
	}
	return c.ID, nil
}
