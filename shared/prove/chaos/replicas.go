package chaos

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/dynast-io/dynast/shared/host/datadir"
	replog "github.com/dynast-io/dynast/shared/replica/log"
	"github.com/dynast-io/dynast/shared/replica/store"
)

// Replica is the content of a slot in a stopped cluster.
type Replica struct {
	Slot     int    `json:"slot"`
	Index    uint64 `json:"index"`    // index of its last entry
	Revision int64  `json:"revision"` // revision after all its entries are applied
	// Hash is etcd's HashKV at the revision At, which all replicas have.
	Hash            uint32 `json:"hash"`
	At              int64  `json:"at"`
	CompactRevision int64  `json:"compact_revision"`
	// Error says why the slot could not be read.
	Error string `json:"error,omitempty"`
}

// ErrReplicas says that replicas differ, or that one cannot be read.
var ErrReplicas = errors.New("replicas differ")

// CompareReplicas compares the replicas of a data directory that no process uses. It copies each
// of the slots (all slots, if none is given) below scratch, applies the entries of its log that
// the database lacks, and compares etcd's HashKV at the highest revision that all replicas have.
// It makes one copy after the other, and removes each. It returns ErrReplicas if the replicas
// differ, or if one cannot be read.
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
	for _, n := range slots { // the last entry and the revision of each
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

// differences compares all replicas with the first. A hash does not show which replica is wrong,
// so the error lists all of them.
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
			// Replicas with the same entries must have the same revision.
			different = different || other.Error == "" && other.Index == r.Index && other.Revision != r.Revision
		}
	}
	if !different {
		return nil
	}
	return fmt.Errorf("%w: %q", ErrReplicas, said)
}

// withCopy calls f with the state that a slot's owner would have after its start: the database
// plus the log.
func withCopy(slot datadir.Slot, scratch string, f func(s *store.Store, last uint64) error) (err error) {
	dir, err := os.MkdirTemp(scratch, fmt.Sprintf("slot-%d-", slot.Number))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// Copy only the database, because other files there, such as an unfinished snapshot, may be
	// large.
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

// leftovers lists what must not be in a stopped data directory: sockets, unfinished databases,
// and too many slots.
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
	// If a slot is still busy when its process is replaced, the new process uses the next slot.
	if most := followers + 1 + spareSlots; len(slots) > most {
		left = append(left, fmt.Sprintf("%d slots, but only %d are needed", len(slots), followers+1))
	}
	slices.Sort(left)
	return left, nil
}

// spareSlots is the number of unused slots that many faults may leave behind.
const spareSlots = 2
