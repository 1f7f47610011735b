package store

import (
	"fmt"
	"io"

	"go.etcd.io/etcd/server/v3/storage/backend"

	"github.com/dynast-io/dynast/shared/rules/entry"
)

// Snapshot is the database file as it was at one entry. The store goes on meanwhile. Close must
// be called, before the store's Close.
type Snapshot struct {
	// Position is the last entry in the snapshot. A store opened from it reports it as Applied.
	Position entry.Position
	// Size is the size in bytes.
	Size int64

	snap backend.Snapshot
}

// Snapshot takes a snapshot at Applied. The goroutine that applies must call it, between two
// entries. A backup, for which Position does not matter, can be taken on any goroutine.
func (s *Store) Snapshot() (Snapshot, error) {
	s.mu.Lock()
	applied, broken := s.applied, s.broken
	s.mu.Unlock()
	if broken != nil {
		return Snapshot{}, broken
	}
	// Snapshot commits first, so the index in the file is up to date.
	snap := s.be.Snapshot()
	return Snapshot{Position: applied, Size: snap.Size(), snap: snap}, nil
}

// WriteTo writes a complete database file of Size bytes.
func (s Snapshot) WriteTo(w io.Writer) (int64, error) {
	n, err := s.snap.WriteTo(w)
	if err != nil {
		return n, fmt.Errorf("write snapshot of %s: %w", s.Position, err)
	}
	return n, nil
}

// Close lets the store reuse the pages that only the snapshot needed.
func (s Snapshot) Close() error {
	if err := s.snap.Close(); err != nil {
		return fmt.Errorf("close snapshot of %s: %w", s.Position, err)
	}
	return nil
}
