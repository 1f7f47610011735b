package clientapi

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

// Snapshot sends the database file as it is now, and its SHA-256, in etcd's
// form: the messages after one another are the file that etcd's tools restore
// from.
func (s *maintenanceServer) Snapshot(_ *pb.SnapshotRequest, out grpc.ServerStreamingServer[pb.SnapshotResponse]) error {
	if err := s.requireAdmin(out.Context()); err != nil {
		return toStatus(err)
	}
	err := s.backup(out)
	if err != nil && !errors.Is(err, context.Canceled) {
		s.logger.Warn("a backup could not be sent", "error", err)
	}
	return toStatus(err)
}

func (s *maintenanceServer) backup(out grpc.ServerStreamingServer[pb.SnapshotResponse]) (err error) {
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
			return b.failed // as it is: it may be a status
		}
		return err
	}
	if err := b.flush(); err != nil {
		return err
	}
	if b.left != 0 {
		return fmt.Errorf("the backup lacks %d bytes", b.left)
	}
	s.logger.Info("a backup was sent", "size_bytes", snap.Size)
	return out.Send(&pb.SnapshotResponse{Blob: b.sum.Sum(nil), Version: b.version})
}

// backupStream makes messages of what is written to it. It buffers: the file
// comes in pieces of any size.
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

// flush sends a message. gRPC keeps what it sends, so the next one needs a
// buffer of its own.
func (b *backupStream) flush() error {
	if len(b.buf) == 0 {
		return nil
	}
	select {
	case <-b.stopping:
		b.failed = rpctypes.ErrGRPCStopped // Unavailable: the next leader has the same
		return b.failed
	default:
	}
	_, _ = b.sum.Write(b.buf) // a hash does not fail
	b.left -= int64(len(b.buf))
	b.failed = b.out.Send(&pb.SnapshotResponse{RemainingBytes: uint64(b.left), Blob: b.buf, Version: b.version})
	b.buf = nil
	return b.failed
}
