package entry

import (
	"cmp"
	"fmt"
)

// Entry is one record of the replicated log.
type Entry struct {
	Index uint64
	// Epoch is the epoch of the leader that first appended the entry.
	Epoch uint64
	// Data is a marshalled etcd InternalRaftRequest. It is empty for the first entry of an
	// epoch. It must not be changed after the entry was handed on.
	Data []byte
}

// Position is a place in the log: right after the entry at Index, which was appended in Epoch.
// The zero Position is before the first entry.
type Position struct {
	Epoch uint64
	Index uint64
}

// Position returns the place in the log right after e.
func (e Entry) Position() Position { return Position{Epoch: e.Epoch, Index: e.Index} }

// Compare orders positions by epoch and then by index. The log with the greater last position
// is the more complete one.
func (p Position) Compare(o Position) int {
	return cmp.Or(cmp.Compare(p.Epoch, o.Epoch), cmp.Compare(p.Index, o.Index))
}

// Less reports whether p is before o.
func (p Position) Less(o Position) bool { return p.Compare(o) < 0 }

// IsZero reports whether p is before the first entry.
func (p Position) IsZero() bool { return p == Position{} }

func (p Position) String() string { return fmt.Sprintf("%d/%d", p.Epoch, p.Index) }
