package api

import (
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// Warm makes the protobuf package read the descriptors of the usual messages. It would do that at
// the first request, which takes a millisecond or more of a takeover. So a follower calls Warm while
// it starts.
func Warm() error {
	key, header := []byte("k"), &pb.ResponseHeader{Revision: 1}
	put := &pb.PutRequest{Key: key}
	op := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}}
	answered := &pb.PutResponse{Header: header}
	kv := &mvccpb.KeyValue{Key: key}
	for _, m := range []proto.Message{
		&pb.InternalRaftRequest{Header: &pb.RequestHeader{ID: 1}, Put: put},
		answered,
		&pb.RangeRequest{Key: key},
		&pb.RangeResponse{Header: header, Kvs: []*mvccpb.KeyValue{kv}},
		&pb.DeleteRangeRequest{Key: key},
		&pb.DeleteRangeResponse{Header: header},
		&pb.TxnRequest{Compare: []*pb.Compare{{Key: key}}, Success: []*pb.RequestOp{op}},
		&pb.TxnResponse{Header: header, Responses: []*pb.ResponseOp{{Response: &pb.ResponseOp_ResponsePut{ResponsePut: answered}}}},
		&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: key}}},
		&pb.WatchResponse{Header: header, Events: []*mvccpb.Event{{Kv: kv}}},
		&pb.LeaseKeepAliveRequest{ID: 1},
		&pb.LeaseKeepAliveResponse{Header: header},
	} {
		encoded, err := proto.Marshal(m)
		if err == nil {
			err = proto.Unmarshal(encoded, m)
		}
		if err != nil {
			return fmt.Errorf("warm up %T: %w", m, err)
		}
	}
	return nil
}
