package store

import (
	"bytes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers that txnDecoder knows, in addition to those of decodePlain.
const (
	requestTxn = 6

	txnCompare = 1
	txnSuccess = 2
	txnFailure = 3

	compareResult   = 1
	compareTarget   = 2
	compareKeyField = 3
	compareVersion  = 4
	compareCreate   = 5
	compareMod      = 6
	compareValue    = 7
	compareLease    = 8
	compareRangeEnd = 64

	opRange  = 1
	opPut    = 2
	opDelete = 3

	putLease = 3

	rangeKey = 1 // of a range and of a deletion
	rangeEnd = 2
)

// txnDecoder decodes entries that hold a transaction of the usual kind, without allocating its
// parts anew for each entry. Those are the messages with only the fields above.
type txnDecoder struct {
	request pb.InternalRaftRequest
	// compares and ops are the parts that were needed so far, and how many of them are in use.
	compares        []*pb.Compare
	ops             []*reusedOp
	ncompares, nops int
}

// reusedOp is an operation of any kind.
type reusedOp struct {
	op  pb.RequestOp
	put pb.RequestOp_RequestPut
	del pb.RequestOp_RequestDeleteRange
	get pb.RequestOp_RequestRange
}

func newTxnDecoder() *txnDecoder {
	return &txnDecoder{request: pb.InternalRaftRequest{Txn: &pb.TxnRequest{}}}
}

// wireField is a field of an encoded message.
type wireField struct {
	number protowire.Number
	kind   protowire.Type
	bytes  []byte // of BytesType
	varint uint64 // of VarintType
}

// text reports whether the field is this one and holds bytes. An empty field is not written.
func (f *wireField) text(number protowire.Number) bool {
	return f.number == number && f.kind == protowire.BytesType && len(f.bytes) > 0
}

func (f *wireField) integer(number protowire.Number) bool {
	return f.number == number && f.kind == protowire.VarintType
}

// eachField visits the fields of a message. It returns false if the message is malformed, has
// a field of another type, or if visit returns false.
func eachField(data []byte, visit func(f *wireField) bool) bool {
	for len(data) > 0 {
		var f wireField
		n := 0
		if f.number, f.kind, n = protowire.ConsumeTag(data); n < 0 {
			return false
		}
		data = data[n:]
		switch f.kind {
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(data)
		case protowire.VarintType:
			f.varint, n = protowire.ConsumeVarint(data)
		default:
			return false
		}
		if n < 0 {
			return false
		}
		data = data[n:]
		if !visit(&f) {
			return false
		}
	}
	return true
}

// decode returns the request that an entry holds, or nil if it is of another kind. The request
// is valid until the next call. It shares memory with data, except for the keys that are put,
// because the index keeps them.
func (d *txnDecoder) decode(data []byte) *pb.InternalRaftRequest {
	t := d.request.Txn
	t.Compare, t.Success, t.Failure = t.Compare[:0], t.Success[:0], t.Failure[:0]
	d.ncompares, d.nops = 0, 0
	header, found := false, false
	ok := eachField(data, func(f *wireField) bool {
		switch {
		case f.text(requestHeader) && !header && anonymous(f.bytes):
			header = true
			return true
		case f.text(requestTxn) && !found:
			found = true
			return eachField(f.bytes, d.part)
		}
		return false
	})
	if !ok || !found {
		return nil
	}
	return &d.request
}

// part decodes a field of the transaction.
func (d *txnDecoder) part(f *wireField) bool {
	t := d.request.Txn
	switch {
	case f.text(txnCompare):
		c := d.compare(f.bytes)
		t.Compare = append(t.Compare, c)
		return c != nil
	case f.text(txnSuccess):
		op := d.op(f.bytes)
		t.Success = append(t.Success, op)
		return op != nil
	case f.text(txnFailure):
		op := d.op(f.bytes)
		t.Failure = append(t.Failure, op)
		return op != nil
	}
	return false
}

func (d *txnDecoder) compare(data []byte) *pb.Compare {
	if d.ncompares == len(d.compares) {
		d.compares = append(d.compares, &pb.Compare{})
	}
	c := d.compares[d.ncompares]
	d.ncompares++
	c.Result, c.Target, c.Key, c.TargetUnion, c.RangeEnd = 0, 0, nil, nil, nil
	ok := eachField(data, func(f *wireField) bool {
		switch {
		case f.integer(compareResult):
			c.Result = pb.Compare_CompareResult(f.varint)
		case f.integer(compareTarget):
			c.Target = pb.Compare_CompareTarget(f.varint)
		case f.text(compareKeyField):
			c.Key = f.bytes
		case f.integer(compareVersion):
			c.TargetUnion = &pb.Compare_Version{Version: int64(f.varint)}
		case f.integer(compareCreate):
			c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: int64(f.varint)}
		case f.integer(compareMod):
			c.TargetUnion = &pb.Compare_ModRevision{ModRevision: int64(f.varint)}
		case f.text(compareValue):
			c.TargetUnion = &pb.Compare_Value{Value: f.bytes}
		case f.integer(compareLease):
			c.TargetUnion = &pb.Compare_Lease{Lease: int64(f.varint)}
		case f.text(compareRangeEnd):
			c.RangeEnd = f.bytes
		default:
			return false
		}
		return true
	})
	if !ok {
		return nil
	}
	return c
}

func (d *txnDecoder) op(data []byte) *pb.RequestOp {
	if d.nops == len(d.ops) {
		d.ops = append(d.ops, &reusedOp{
			put: pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{}},
			del: pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{}},
			get: pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{}},
		})
	}
	r := d.ops[d.nops]
	d.nops++
	r.op.Request = nil
	ok := eachField(data, func(f *wireField) bool {
		switch {
		case r.op.Request != nil: // protobuf would merge the two
			return false
		case f.text(opPut):
			r.op.Request = &r.put
			return decodePut(f.bytes, r.put.RequestPut)
		case f.text(opDelete):
			r.op.Request = &r.del
			return decodeInterval(f.bytes, &r.del.RequestDeleteRange.Key, &r.del.RequestDeleteRange.RangeEnd)
		case f.text(opRange):
			r.op.Request = &r.get
			return decodeInterval(f.bytes, &r.get.RequestRange.Key, &r.get.RequestRange.RangeEnd)
		}
		return false
	})
	if !ok {
		return nil
	}
	return &r.op
}

func decodePut(data []byte, p *pb.PutRequest) bool {
	p.Key, p.Value, p.Lease = nil, nil, 0
	return eachField(data, func(f *wireField) bool {
		switch {
		case f.text(putKey):
			p.Key = bytes.Clone(f.bytes)
		case f.text(putValue):
			p.Value = f.bytes
		case f.integer(putLease):
			p.Lease = int64(f.varint)
		default:
			return false
		}
		return true
	})
}

func decodeInterval(data []byte, key, end *[]byte) bool {
	*key, *end = nil, nil
	return eachField(data, func(f *wireField) bool {
		switch {
		case f.text(rangeKey):
			*key = f.bytes
		case f.text(rangeEnd):
			*end = f.bytes
		default:
			return false
		}
		return true
	})
}
