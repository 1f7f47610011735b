package entry

import (
	"cmp"
	"fmt"
)

// Entry is one record of the replicated log.
type Entry struct {
	Index uint64
	// Epoch is the leadership under which the entry was first appended.
	Epoch uint64
	// Data is a marshalled etcd InternalRaftRequest; empty for the first entry
	// of an epoch. It is never changed once the entry was handed on.
	Data []byte
}

// Position names a place in the log: everything up to and including Index,
// whose entry was appended in Epoch. The zero Position is before the first
// entry.
type Position struct {
	Epoch uint64
	Index uint64
}

// Position returns the place of the log right after e.
func (e Entry) Position() Position { return Position{Epoch: e.Epoch, Index: e.Index} }

// Compare orders positions by epoch and then by index: of two logs, the one
// with the greater last position is the more complete one.
func (p Position) Compare(o Position) int {
	return cmp.Or(cmp.Compare(p.Epoch, o.Epoch), cmp.Compare(p.Index, o.Index))
}

// Less reports whether p is before o.
func (p Position) Less(o Position) bool { return p.Compare(o) < 0 }

// IsZero reports whether p is before the first entry.
func (p Position) IsZero() bool { return p == Position{} }

func (p Position) String() string { return fmt.Sprintf("%d/%d", p.Epoch, p.Index) }
