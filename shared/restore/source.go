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

// source is what is restored: a database file, and for a data directory the
// log that goes with it. The file is locked while it is read.
type source struct {
	db *os.File
	// dir is an etcd's data directory, empty for a snapshot file; walDir its log.
	dir, walDir string
	skipHash    bool
	lg          *zap.Logger
}

// openSource finds out what the source is.
func openSource(o Options) (*source, error) {
	info, err := os.Stat(o.Source)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no such file or directory: give a file of 'etcdctl snapshot save', or the data directory of an etcd: %w", err)
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
		return nil, fmt.Errorf("%w: it is no regular file", ErrNoSnapshot)
	case o.WALDir != "":
		return nil, errors.New("--wal-dir is for an etcd's data directory, and this is a file: a snapshot has no log")
	}
	if s.db, err = os.Open(path); err != nil {
		return nil, err
	}
	if err := s.lock(); err != nil {
		return nil, errors.Join(err, s.db.Close())
	}
	return s, nil
}

// etcdDir returns the database of an etcd's data directory.
func (s *source) etcdDir(o Options) (string, error) {
	if _, err := os.Stat(filepath.Join(o.Source, "cluster.json")); err == nil {
		return "", fmt.Errorf("%w: it is a data directory of dynast already; start it with 'dynast up --data-dir %s'", ErrNoSnapshot, o.Source)
	}
	db := filepath.Join(o.Source, "member", "snap", "db")
	if _, err := os.Stat(db); err != nil {
		return "", fmt.Errorf("%w: a data directory of etcd has member/snap/db in it: %w", ErrNoSnapshot, err)
	}
	s.dir, s.walDir = o.Source, o.WALDir
	if s.walDir == "" {
		s.walDir = filepath.Join(o.Source, "member", "wal")
	}
	if _, err := os.Stat(s.walDir); err != nil {
		return "", fmt.Errorf("the log is missing, without which the last writes are: if etcd ran with --wal-dir, give the same here: %w", err)
	}
	return db, nil
}

// lock keeps an etcd from starting meanwhile, which takes the same lock for as
// long as it runs.
func (s *source) lock() error {
	for {
		err := unix.Flock(int(s.db.Fd()), unix.LOCK_SH|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case err == unix.EINTR:
		case err == unix.EWOULDBLOCK:
			return fmt.Errorf("%w: a process has %s open, so an etcd runs on it: stop it first, or take a snapshot of it with 'etcdctl snapshot save FILE'", ErrInUse, s.db.Name())
		default:
			return fmt.Errorf("lock %s: %w", s.db.Name(), err)
		}
	}
}

func (s *source) close() { _ = s.db.Close() }

// A snapshot file is a database, in blocks of 512 bytes, and its SHA-256.
const blockBytes = 512

// copyTo copies the database, durably; of a snapshot it checks the sum.
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
		return fmt.Errorf("%w: its size of %d bytes is that of no database, nor of one with its SHA-256 at the end; if it was one, it was cut off", ErrNoSnapshot, size)
	case s.dir == "" && !s.skipHash:
		return fmt.Errorf("%w: the file has no SHA-256 at its end. If it is the database of an etcd that was copied (member/snap/db), take the whole data directory, or say --skip-hash-check: what was in the log only is missing then", ErrNoSnapshot)
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
		err = fmt.Errorf("%w: the SHA-256 at the end of the file is %x, that of its content is %x: it was changed or cut after it was written; take another one", ErrDamaged, want, sum.Sum(nil))
	}
	return err
}

// stoppable ends a copy with its context.
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
