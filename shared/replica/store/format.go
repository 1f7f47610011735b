package store

import (
	"fmt"

	"github.com/coreos/go-semver/semver"
	"go.etcd.io/etcd/api/v3/version"
	"go.etcd.io/etcd/server/v3/storage/schema"
)

// formatVersion is the version of the database format, which is etcd's. The lessor asks a
// cluster for it; here all members have the same version.
type formatVersion struct{}

func (formatVersion) Version() *semver.Version {
	v := semver.New(version.Version)
	return &semver.Version{Major: v.Major, Minor: v.Minor}
}

// migrate brings the database to this program's format and records the version in it.
func (s *Store) migrate() error {
	target := *formatVersion{}.Version()
	tx := s.be.BatchTx()
	tx.LockOutsideApply()
	defer tx.Unlock()
	current := schema.UnsafeReadStorageVersion(tx)
	switch {
	case current == nil:
		schema.UnsafeSetStorageVersion(tx, &target)
		return nil
	case current.Equal(target):
		return nil
	case target.LessThan(*current):
		return fmt.Errorf("%w: it is %s, this program knows %s; start a program of the later version", ErrNewer, current, &target)
	}
	if err := schema.UnsafeMigrate(s.lg, tx, noWAL{}, target); err != nil {
		return fmt.Errorf("migrate from format %s to %s: %w", current, &target, err)
	}
	return nil
}

// noWAL stands for etcd's log, which is asked only when migrating to an older format.
type noWAL struct{}

func (noWAL) MinimalEtcdVersion() *semver.Version { return nil }
