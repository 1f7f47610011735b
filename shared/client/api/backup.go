package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
)

// backupChunkBytes is the size of a message of a backup.
const backupChunkBytes = 64 << 10

// maxBackups bounds how many backups are sent at the same time; further ones wait. Each backup
// keeps the database file open, and one connection can ask for thousands.
const maxBackups = 4

// Snapshot sends the current database file and its SHA-256 in etcd's format: the concatenated
// messages are the file from which etcd's tools restore.
func (s *maintenanceServer) Snapshot(_ *pb.SnapshotRequest, out grpc.ServerStreamingServer[pb.SnapshotResponse]) error {
	if err := s.requireAdmin(out.Context()); err != nil {
		return toStatus(err)
	}
	err := s.backup(out)
	if err != nil && !errors.Is(err, context.Canceled) {
		s.logger.Warn("cannot send a backup", "error", err)
	}
	return toStatus(err)
}

func (s *maintenanceServer) backup(out grpc.ServerStreamingServer[pb.SnapshotResponse]) (err error) {
	select {
	case s.backups <- struct{}{}:
		defer func() { <-s.backups }()
	case <-out.Context().Done():
		return out.Context().Err()
	case <-s.stopping:
		return rpctypes.ErrGRPCStopped
	}
	snap, err := s.store.Snapshot()
	if err != nil {
		return err
	}
	defer func() {
		if e := snap.Close(); e != nil && err == nil {
			err = e
		}
	}()
	b := &backupStream{out: out, left: snap.Size, version: s.store.Version(), sum: sha256.New(), stopping: s.stopping}
	if _, err := snap.WriteTo(b); err != nil {
		if b.failed != nil {
			return b.failed // unchanged, because it may be a status
		}
		return err
	}
	if err := b.flush(); err != nil {
		return err
	}
	if b.left != 0 {
		return fmt.Errorf("the backup is %d bytes too short", b.left)
	}
	s.logger.Info("sent a backup", "size_bytes", snap.Size)
	return out.Send(&pb.SnapshotResponse{Blob: b.sum.Sum(nil), Version: b.version})
}

// backupStream turns what is written to it into messages. It buffers, because the file comes in
// pieces of any size.
type backupStream struct {
	out      grpc.ServerStreamingServer[pb.SnapshotResponse]
	stopping <-chan struct{}
	version  string
	left     int64 // bytes that are not sent yet
	sum      hash.Hash
	buf      []byte
	failed   error
}

// Write implements io.Writer.
func (b *backupStream) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if b.buf == nil {
			b.buf = make([]byte, 0, backupChunkBytes)
		}
		fits := min(len(p), cap(b.buf)-len(b.buf))
		b.buf = append(b.buf, p[:fits]...)
		p = p[fits:]
		if len(b.buf) == cap(b.buf) {
			if err := b.flush(); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

// flush sends a message. gRPC keeps what it sends, so the next message needs a new buffer.
func (b *backupStream) flush() error {
	if len(b.buf) == 0 {
		return nil
	}
	select {
	case <-b.stopping:
		b.failed = rpctypes.ErrGRPCStopped // Unavailable, so that the client asks the next leader
		return b.failed
	default:
	}
	_, _ = b.sum.Write(b.buf) // a hash does not fail
	b.left -= int64(len(b.buf))
	b.failed = b.out.Send(&pb.SnapshotResponse{RemainingBytes: uint64(b.left), Blob: b.buf, Version: b.version})
	b.buf = nil
	return b.failed
}
