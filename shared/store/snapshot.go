package store

import (
	"fmt"
	"io"

	"go.etcd.io/etcd/server/v3/storage/backend"

	"github.com/dynast-io/dynast/shared/entry"
)

// Snapshot is the database file as it was at one entry. The store goes on
// meanwhile; Close must be called, and before the store's.
type Snapshot struct {
	// Position is the last entry in it, and what a store opened from it
	// reports as Applied.
	Position entry.Position
	// Size is in bytes.
	Size int64

	snap backend.Snapshot
}

// Snapshot takes a snapshot at Applied. It is called by the goroutine that
// applies, between two entries. A backup, to which Position is nothing, can be
// taken on any goroutine.
func (s *Store) Snapshot() (Snapshot, error) {
	s.mu.Lock()
	applied, broken := s.applied, s.broken
	s.mu.Unlock()
	if broken != nil {
		return Snapshot{}, broken
	}
	// It commits first, so the file's own count of entries is up to date.
	snap := s.be.Snapshot()
	return Snapshot{Position: applied, Size: snap.Size(), snap: snap}, nil
}

// WriteTo writes a complete database file of Size.
func (s Snapshot) WriteTo(w io.Writer) (int64, error) {
	n, err := s.snap.WriteTo(w)
	if err != nil {
		return n, fmt.Errorf("write snapshot of %s: %w", s.Position, err)
	}
	return n, nil
}

// Close lets the store reuse what only the snapshot still needed.
func (s Snapshot) Close() error {
	if err := s.snap.Close(); err != nil {
		return fmt.Errorf("close snapshot of %s: %w", s.Position, err)
	}
	return nil
}
