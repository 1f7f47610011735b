package datadir

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// Claims is claims.json: it records which epochs were ever begun (see core.Claims). Only the
// holder of cluster.lock writes it, before it appends the first entry of an epoch.
type Claims struct {
	Schema    int    `json:"schema"` // set by WriteClaims
	ClusterID uint64 `json:"cluster_id,string"`
	Epoch     uint64 `json:"epoch"` // the highest claimed epoch, from 1
	// Abandoned lists claimed epochs whose leader died before succession.json named it.
	Abandoned []uint64  `json:"abandoned,omitempty"`
	At        time.Time `json:"at"`
}

func (c *Claims) validate() error {
	err := need(c.Epoch > 0, "no epoch")
	for _, epoch := range c.Abandoned {
		err = errors.Join(err, need(epoch < c.Epoch, "an abandoned epoch is not below the claimed one"))
	}
	return err
}

func (d *Dir) claimsPath() string { return filepath.Join(d.path, "claims.json") }

// ReadClaims reads claims.json. The error is os.ErrNotExist if there is none, and ErrCorrupt if
// it is malformed.
func (d *Dir) ReadClaims() (Claims, error) {
	var c Claims
	if err := readState(d.claimsPath(), &c); err != nil {
		return Claims{}, fmt.Errorf("read claims: %w", err)
	}
	return c, nil
}

// WriteClaims replaces claims.json durably, like WriteSuccession its file.
func (d *Dir) WriteClaims(c Claims) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	c.Schema = schema
	if err := writeState(d.claimsPath(), &c); err != nil {
		return fmt.Errorf("write claims: %w", err)
	}
	return nil
}
