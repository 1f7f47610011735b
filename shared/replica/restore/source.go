package restore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// source is what is restored: a database file and, for a data directory, its log. The database
// file is locked while it is read.
type source struct {
	db *os.File
	// dir is the etcd's data directory, or empty for a snapshot file. walDir is the directory
	// of its log.
	dir, walDir string
	skipHash    bool
	lg          *zap.Logger
}

// openSource opens the source and finds out what it is.
func openSource(o Options) (*source, error) {
	info, err := os.Stat(o.Source)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the source does not exist: give a file that 'etcdctl snapshot save' wrote, or the data directory of an etcd: %w", err)
	}
	if err != nil {
		return nil, err
	}
	s := &source{skipHash: o.SkipHashCheck, lg: o.Logger}
	path := o.Source
	switch {
	case info.IsDir():
		if path, err = s.etcdDir(o); err != nil {
			return nil, err
		}
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%w: the source is not a regular file", ErrNoSnapshot)
	case o.WALDir != "":
		return nil, errors.New("--wal-dir is only for the data directory of an etcd, but the source is a file: a snapshot has no log")
	}
	if s.db, err = os.Open(path); err != nil {
		return nil, err
	}
	if err := s.lock(); err != nil {
		return nil, errors.Join(err, s.db.Close())
	}
	return s, nil
}

// etcdDir returns the path of the database in an etcd's data directory.
func (s *source) etcdDir(o Options) (string, error) {
	if _, err := os.Stat(filepath.Join(o.Source, "cluster.json")); err == nil {
		return "", fmt.Errorf("%w: this is already a data directory of dynast; start it with 'dynast up --data-dir %s'", ErrNoSnapshot, o.Source)
	}
	db := filepath.Join(o.Source, "member", "snap", "db")
	if _, err := os.Stat(db); err != nil {
		return "", fmt.Errorf("%w: the directory has no member/snap/db, so it is not a data directory of etcd: %w", ErrNoSnapshot, err)
	}
	s.dir, s.walDir = o.Source, o.WALDir
	if s.walDir == "" {
		s.walDir = filepath.Join(o.Source, "member", "wal")
	}
	if _, err := os.Stat(s.walDir); err != nil {
		return "", fmt.Errorf("the log is missing, and without it the last writes would be lost: if etcd ran with --wal-dir, give the same option here: %w", err)
	}
	return db, nil
}

// lock keeps an etcd from starting meanwhile. An etcd holds the same lock for as long as it
// runs.
func (s *source) lock() error {
	for {
		err := unix.Flock(int(s.db.Fd()), unix.LOCK_SH|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case err == unix.EINTR:
		case err == unix.EWOULDBLOCK:
			return fmt.Errorf("%w: an etcd runs on this directory (a process has %s open): stop it first, or take a snapshot of it with 'etcdctl snapshot save FILE'", ErrInUse, s.db.Name())
		default:
			return fmt.Errorf("lock %s: %w", s.db.Name(), err)
		}
	}
}

func (s *source) close() { _ = s.db.Close() }

// A snapshot file is a database, which consists of blocks of 512 bytes, followed by its
// SHA-256.
const blockBytes = 512

// copyTo copies the database durably. For a snapshot file it also checks the SHA-256.
func (s *source) copyTo(ctx context.Context, path string) error {
	info, err := s.db.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	hashed := size%blockBytes == sha256.Size && s.dir == ""
	switch {
	case hashed:
		size -= sha256.Size
	case size == 0:
		return fmt.Errorf("%w: the file is empty", ErrNoSnapshot)
	case size%blockBytes != 0:
		return fmt.Errorf("%w: the size of %d bytes fits neither a database nor a database with its SHA-256 at the end; the file may have been cut off", ErrNoSnapshot, size)
	case s.dir == "" && !s.skipHash:
		return fmt.Errorf("%w: the file has no SHA-256 at its end. If it is a copy of an etcd's database (member/snap/db), restore the whole data directory instead, or use --skip-hash-check and lose the writes that only the log has", ErrNoSnapshot)
	}
	sum := sha256.New()
	var to io.Writer = sum
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if check := hashed && !s.skipHash; check {
		to = io.MultiWriter(out, sum)
	} else {
		to, hashed = out, false
	}
	_, err = io.Copy(to, stoppable{ctx, io.LimitReader(s.db, size)})
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	if !hashed {
		return nil
	}
	want, err := io.ReadAll(s.db)
	if err == nil && !bytes.Equal(want, sum.Sum(nil)) {
		err = fmt.Errorf("%w: the SHA-256 at the end of the file is %x, but that of its content is %x: the file was changed or cut off after it was written; use another snapshot", ErrDamaged, want, sum.Sum(nil))
	}
	return err
}

// stoppable ends a copy when its context ends.
type stoppable struct {
	ctx context.Context
	r   io.Reader
}

func (s stoppable) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.r.Read(p)
}
