package api

import (
	"bytes"
	"math"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/txn"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// firstChunkKeys is the maximum number of keys in the first message of a RangeStream. Later
// messages grow to about the largest request size.
const firstChunkKeys = 10

// RangeStream answers a range in chunks. All chunks are at the requested revision, or at the
// one that was current when the stream began. The last chunk has the header and the count.
func (s *kvServer) RangeStream(r *pb.RangeRequest, out grpc.ServerStreamingServer[pb.RangeStreamResponse]) error {
	if err := checkRangeStream(r); err != nil {
		return err
	}
	err := s.read(out.Context(), s.mayRange(r), func() error {
		if r.CountOnly {
			return s.streamCount(r, out)
		}
		return s.streamChunks(r, out)
	})
	return toStatus(err)
}

func (s *kvServer) streamCount(r *pb.RangeRequest, out grpc.ServerStreamingServer[pb.RangeStreamResponse]) error {
	resp, _, err := txn.Range(out.Context(), s.store.Logger(), s.store.KV(), r, false)
	if err != nil {
		return err
	}
	return s.sendChunk(out, &pb.RangeResponse{
		Header: &pb.ResponseHeader{Revision: resp.Header.Revision}, Count: resp.Count,
	})
}

func (s *kvServer) streamChunks(r *pb.RangeRequest, out grpc.ServerStreamingServer[pb.RangeStreamResponse]) error {
	ctx, lg, kv := out.Context(), s.store.Logger(), s.store.KV()
	left := r.Limit // keys that may still be sent
	if left == 0 {
		left = math.MaxInt64
	}
	next := proto.Clone(r).(*pb.RangeRequest)
	next.Limit = min(firstChunkKeys, left)
	var began, sent int64 // began: the revision at the beginning; sent: the number of keys sent
	for {
		resp, _, err := txn.Range(ctx, lg, kv, next, false)
		if err != nil {
			return err
		}
		if began == 0 {
			began = resp.Header.Revision
			if next.Revision == 0 {
				next.Revision = began
			}
		}
		n := int64(len(resp.Kvs))
		sent, left = sent+n, left-n
		chunk := &pb.RangeResponse{Kvs: resp.Kvs}
		if resp.More {
			next.Key = append(bytes.Clone(resp.Kvs[n-1].Key), 0)
		}
		if last := !resp.More || left == 0; last {
			chunk.Header = &pb.ResponseHeader{Revision: began}
			chunk.More, chunk.Count = resp.More, sent
			if resp.More {
				rest, err := txn.Count(ctx, lg, kv, next.Key, next.RangeEnd, next.Revision)
				if err != nil {
					return err
				}
				chunk.Count += rest
			}
			return s.sendChunk(out, chunk)
		}
		if err := s.sendChunk(out, chunk); err != nil {
			return err
		}
		next.Limit = min(nextChunkKeys(next.Limit, proto.Size(resp), s.limits.MaxRequestBytes), left)
	}
}

func (s *kvServer) sendChunk(out grpc.ServerStreamingServer[pb.RangeStreamResponse], chunk *pb.RangeResponse) error {
	if chunk.Header != nil {
		s.fillWithoutRevision(chunk.Header)
	}
	return out.Send(&pb.RangeStreamResponse{RangeResponse: chunk})
}

// nextChunkKeys doubles the number of keys while chunks are smaller than half the target size,
// and halves it when they are larger than twice the target size. It never returns 0, which
// would mean "no limit".
func nextChunkKeys(keys int64, sizeBytes, targetBytes int) int64 {
	switch {
	case sizeBytes < targetBytes/2:
		keys *= 2
	case sizeBytes > targetBytes*2:
		keys /= 2
	}
	return max(keys, 1)
}
