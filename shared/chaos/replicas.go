package chaos

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/dynast-io/dynast/shared/datadir"
	replog "github.com/dynast-io/dynast/shared/log"
	"github.com/dynast-io/dynast/shared/store"
)

// Replica is what a slot of a stopped cluster holds.
type Replica struct {
	Slot     int    `json:"slot"`
	Index    uint64 `json:"index"`    // of its last entry
	Revision int64  `json:"revision"` // with all its entries applied
	// Hash is etcd's HashKV at the revision At, which all replicas have.
	Hash            uint32 `json:"hash"`
	At              int64  `json:"at"`
	CompactRevision int64  `json:"compact_revision"`
	// Error says why it could not be read.
	Error string `json:"error,omitempty"`
}

// ErrReplicas says that replicas hold different things.
var ErrReplicas = errors.New("replicas differ")

// CompareReplicas opens a copy of each of the slots (none given: all) of a data
// directory that no process uses, applies what its log holds beyond its database, and compares etcd's HashKV
// of all at the highest revision that all have. The copies are made below scratch, one
// after the other, and removed. The error is ErrReplicas when they differ, or when
// one can't be read.
func CompareReplicas(dataDir, scratch string, slots ...int) ([]Replica, error) {
	dir, err := datadir.OpenForReading(dataDir)
	if err != nil {
		return nil, fmt.Errorf("compare replicas: %w", err)
	}
	if len(slots) == 0 {
		if slots, err = dir.Slots(); err != nil {
			return nil, fmt.Errorf("compare replicas: %w", err)
		}
	}
	var replicas []Replica
	for _, n := range slots { // how far each goes
		r := Replica{Slot: n}
		if err := withCopy(dir.Slot(n), scratch, func(s *store.Store, last uint64) error {
			r.Index, r.Revision = last, s.Revision()
			return nil
		}); err != nil {
			r.Error = err.Error()
		}
		replicas = append(replicas, r)
	}
	at := int64(-1)
	for _, r := range replicas {
		if r.Error == "" && (at < 0 || r.Revision < at) {
			at = r.Revision
		}
	}
	for i := range replicas {
		r := &replicas[i]
		if r.Error != "" {
			continue
		}
		if err := withCopy(dir.Slot(r.Slot), scratch, func(s *store.Store, _ uint64) error {
			h, _, err := s.KV().HashStorage().HashByRev(at)
			r.Hash, r.At, r.CompactRevision = h.Hash, at, h.CompactRevision
			return err
		}); err != nil {
			r.Error = err.Error()
		}
	}
	return replicas, differences(replicas)
}

// differences compares all with the first: a hash says nothing of which is
// wrong, so the error tells all.
func differences(replicas []Replica) error {
	var said []string
	different := false
	for i, r := range replicas {
		if r.Error != "" {
			different = true
			said = append(said, fmt.Sprintf("slot %d cannot be read: %s", r.Slot, r.Error))
			continue
		}
		different = different || r.Hash != replicas[0].Hash || r.CompactRevision != replicas[0].CompactRevision
		said = append(said, fmt.Sprintf("slot %d has %08x at revision %d, compacted at %d", r.Slot, r.Hash, r.At, r.CompactRevision))
		for _, other := range replicas[:i] {
			// The same entries are the same revision.
			different = different || other.Error == "" && other.Index == r.Index && other.Revision != r.Revision
		}
	}
	if !different {
		return nil
	}
	return fmt.Errorf("%w: %q", ErrReplicas, said)
}

// withCopy calls f with the state that a slot's owner would have after its start:
// database and log.
func withCopy(slot datadir.Slot, scratch string, f func(s *store.Store, last uint64) error) (err error) {
	dir, err := os.MkdirTemp(scratch, fmt.Sprintf("slot-%d-", slot.Number))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// No whole directory: what else lies there (a snapshot that was on its way) may be large.
	if err := copyFile(store.Path(dir), store.Path(slot.DBDir())); err != nil {
		return err
	}
	s, err := store.Open(store.Config{Dir: dir, QuotaBytes: -1})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	entries, last, err := replog.Read(slot.LogDir(), s.Applied(), replog.Options{Dir: slot.LogDir()})
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, err := s.Apply(e); err != nil {
			return err
		}
	}
	return f(s, last.Index)
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// leftovers lists what is in a stopped data directory that should not be:
// sockets, half-fetched databases, and slots that nobody needs.
func leftovers(dataDir string, followers int) ([]string, error) {
	dir, err := datadir.OpenForReading(dataDir)
	if err != nil {
		return nil, err
	}
	var left []string
	if run, err := dir.RuntimeDir(); err == nil {
		found, err := filepath.Glob(filepath.Join(run, "*", "*"))
		if err != nil {
			return nil, err
		}
		left = append(left, found...)
	}
	slots, err := dir.Slots()
	if err != nil {
		return nil, err
	}
	// A slot that was busy for a moment when its process was to be replaced leaves
	// the next one in use.
	if most := followers + 1 + spareSlots; len(slots) > most {
		left = append(left, fmt.Sprintf("%d slots, %d are needed", len(slots), followers+1))
	}
	slices.Sort(left)
	return left, nil
}

// spareSlots are slots beyond those in use that many faults may leave behind.
const spareSlots = 2
