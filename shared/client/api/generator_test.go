package api

import (
	"fmt"
	"math/rand/v2"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// generator makes random requests over a few keys, so that they affect each other, with every
// option and some invalid ones.
type generator struct {
	*rand.Rand
	// revision is the last revision in an answer.
	revision int64
}

// learn keeps the revision of an answer.
func (g *generator) learn(answers []proto.Message) {
	for _, m := range answers {
		if h := headerOf(m); h != nil {
			g.revision = max(g.revision, h.Revision)
		}
	}
}

func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

func (g *generator) request() request {
	switch n := g.IntN(100); {
	case n < 30:
		return requestOf(g.put())
	case n < 50:
		return requestOf(g.rangeRequest())
	case n < 58:
		return streamOf(g.rangeRequest())
	case n < 68:
		return requestOf(g.delete())
	case n < 97:
		return requestOf(g.txn(0))
	default:
		return requestOf(&pb.CompactionRequest{Revision: g.oldRevision(), Physical: g.chance(50)})
	}
}

func (g *generator) key() []byte {
	switch n := g.IntN(100); {
	case n < 2:
		return nil
	case n < 4:
		return []byte{0}
	case n < 6:
		return []byte("\xff\xff")
	default:
		return fmt.Appendf(nil, "k%02d", g.IntN(40))
	}
}

// end returns a range_end: mostly none, sometimes one before the key, sometimes "from this key
// on".
func (g *generator) end() []byte {
	switch n := g.IntN(100); {
	case n < 55:
		return nil
	case n < 65:
		return []byte{0}
	case n < 70:
		return []byte("l") // the prefix k
	default:
		return g.key()
	}
}

func (g *generator) value() []byte {
	switch n := g.IntN(1000); {
	case n < 100:
		return nil
	case n < 995:
		return []byte(strings.Repeat(string(rune('a'+g.IntN(26))), 1+g.IntN(30)))
	default:
		// The size is around the limit, but hardly ever within the two bytes by which the ids
		// that etcd and the API add to requests may differ.
		return make([]byte, DefaultMaxRequestBytes-100_000+g.IntN(200_000))
	}
}

// oldRevision returns a revision near the current one, sometimes far from it.
func (g *generator) oldRevision() int64 {
	switch n := g.IntN(100); {
	case n < 5:
		return -1 - g.Int64N(3)
	case n < 10:
		return g.revision + 1 + g.Int64N(3)
	case n < 20:
		return g.Int64N(g.revision + 1)
	default:
		return max(g.revision-g.Int64N(30), 1)
	}
}

func (g *generator) put() *pb.PutRequest {
	r := &pb.PutRequest{Key: g.key(), Value: g.value(), PrevKv: g.chance(30)}
	if g.chance(15) {
		r.IgnoreValue = true
		if g.chance(80) {
			r.Value = nil
		}
	}
	if g.chance(15) {
		r.Lease = leaseID + g.Int64N(2) // the second is none
	}
	if g.chance(15) {
		r.IgnoreLease = true
		if g.chance(80) {
			r.Lease = 0
		}
	}
	return r
}

func (g *generator) delete() *pb.DeleteRangeRequest {
	return &pb.DeleteRangeRequest{Key: g.key(), RangeEnd: g.end(), PrevKv: g.chance(40)}
}

func (g *generator) rangeRequest() *pb.RangeRequest {
	r := &pb.RangeRequest{
		Key: g.key(), RangeEnd: g.end(),
		Serializable: g.chance(30), KeysOnly: g.chance(20), CountOnly: g.chance(15),
	}
	if g.chance(60) {
		r.Key = []byte("k") // much of all
		r.RangeEnd = []byte("l")
	}
	if g.chance(30) {
		r.Limit = g.Int64N(30) - 1
	}
	if g.chance(25) {
		r.Revision = g.oldRevision()
	}
	if g.chance(25) {
		r.SortOrder = pb.RangeRequest_SortOrder(g.IntN(4)) // the fourth is none
		r.SortTarget = pb.RangeRequest_SortTarget(g.IntN(6))
	}
	if g.chance(15) {
		for _, field := range []*int64{&r.MinModRevision, &r.MaxModRevision, &r.MinCreateRevision, &r.MaxCreateRevision} {
			if g.chance(40) {
				*field = g.oldRevision()
			}
		}
	}
	return r
}

func (g *generator) compare() *pb.Compare {
	c := &pb.Compare{Key: g.key(), Result: pb.Compare_CompareResult(g.IntN(5)), Target: pb.Compare_CompareTarget(g.IntN(6))}
	if g.chance(30) {
		c.RangeEnd = g.end()
	}
	switch g.IntN(6) { // mostly not what the target wants
	case 0:
		c.TargetUnion = &pb.Compare_Version{Version: g.Int64N(3)}
	case 1:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: g.oldRevision()}
	case 2:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: g.oldRevision()}
	case 3:
		c.TargetUnion = &pb.Compare_Value{Value: g.value()}
	case 4:
		c.TargetUnion = &pb.Compare_Lease{Lease: leaseID}
	}
	return c
}

func (g *generator) txn(depth int) *pb.TxnRequest {
	r := &pb.TxnRequest{}
	for range g.IntN(3) {
		r.Compare = append(r.Compare, g.compare())
	}
	readOnly := g.chance(25)
	r.Success, r.Failure = g.ops(depth, readOnly), g.ops(depth, readOnly)
	if g.chance(1) {
		for range 129 {
			r.Success = append(r.Success, g.op(depth, true))
		}
	}
	// This is the transaction on which etcd crashes.
	for CheckKept(r) != nil {
		r.Success, r.Failure = g.ops(depth, readOnly), g.ops(depth, readOnly)
	}
	return r
}

func (g *generator) ops(depth int, readOnly bool) []*pb.RequestOp {
	ops := make([]*pb.RequestOp, 0, 4)
	for range g.IntN(4) {
		ops = append(ops, g.op(depth, readOnly))
	}
	return ops
}

func (g *generator) op(depth int, readOnly bool) *pb.RequestOp {
	switch n := g.IntN(100); {
	case n < 1:
		return &pb.RequestOp{}
	case readOnly || n < 25:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: g.rangeRequest()}}
	case n < 65 || depth == 3:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: g.put()}}
	case n < 80:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: g.delete()}}
	default:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: g.txn(depth + 1)}}
	}
}
