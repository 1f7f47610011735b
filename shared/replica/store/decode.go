package store

import (
	"bytes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers that requestDecoder knows.
const (
	requestPut    = 4
	requestTxn    = 6
	requestHeader = 100

	headerID = 1

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

	putKey   = 1
	putValue = 2
	putLease = 3

	rangeKey = 1 // of a range and of a deletion
	rangeEnd = 2
)

// requestDecoder decodes entries that hold a put or a transaction of the usual kind, without
// allocating its parts anew for each entry. Those are the messages with only the fields above.
type requestDecoder struct {
	request pb.InternalRaftRequest
	put     pb.PutRequest
	txn     pb.TxnRequest
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

// fields visits the fields of an encoded message, one with each call of next.
type fields struct {
	data   []byte // after the current field
	number protowire.Number
	kind   protowire.Type
	bytes  []byte // of BytesType
	varint uint64 // of VarintType
	bad    bool   // the message is malformed, or has a field of another type
}

// next goes to the next field. It returns false at the end, or if bad is true.
func (f *fields) next() bool {
	if len(f.data) == 0 {
		return false
	}
	n := 0
	if f.number, f.kind, n = protowire.ConsumeTag(f.data); n >= 0 {
		f.data = f.data[n:]
		switch f.kind {
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(f.data)
		case protowire.VarintType:
			f.varint, n = protowire.ConsumeVarint(f.data)
		default:
			n = -1
		}
	}
	if f.bad = n < 0; f.bad {
		return false
	}
	f.data = f.data[n:]
	return true
}

// text reports whether the field is this one and holds bytes. Encoders leave out empty fields.
func (f *fields) text(number protowire.Number) bool {
	return f.number == number && f.kind == protowire.BytesType && len(f.bytes) > 0
}

func (f *fields) integer(number protowire.Number) bool {
	return f.number == number && f.kind == protowire.VarintType
}

// decode returns the request that an entry holds, or nil if it is of another kind. Then the protobuf
// package has to decode the entry. The request is valid until the next call. It shares memory with
// data, except for the keys that are put, because the index keeps them.
func (d *requestDecoder) decode(data []byte) *pb.InternalRaftRequest {
	d.request.Put, d.request.Txn = nil, nil
	header, body := false, false
	f := fields{data: data}
	for f.next() {
		switch {
		case f.text(requestHeader) && !header && anonymous(f.bytes):
			header = true
		case f.text(requestPut) && !body && decodePut(f.bytes, &d.put):
			d.request.Put, body = &d.put, true
		case f.text(requestTxn) && !body && d.transaction(f.bytes):
			d.request.Txn, body = &d.txn, true
		default:
			return nil
		}
	}
	if f.bad || !body {
		return nil
	}
	return &d.request
}

// anonymous reports whether a header holds only the request's id.
func anonymous(header []byte) bool {
	f := fields{data: header}
	return f.next() && f.integer(headerID) && len(f.data) == 0
}

func (d *requestDecoder) transaction(data []byte) bool {
	t := &d.txn
	t.Compare, t.Success, t.Failure = t.Compare[:0], t.Success[:0], t.Failure[:0]
	d.ncompares, d.nops = 0, 0
	f := fields{data: data}
	for f.next() {
		switch {
		case f.text(txnCompare):
			c := d.compare(f.bytes)
			if c == nil {
				return false
			}
			t.Compare = append(t.Compare, c)
		case f.text(txnSuccess), f.text(txnFailure):
			op := d.op(f.bytes)
			if op == nil {
				return false
			}
			if f.number == txnSuccess {
				t.Success = append(t.Success, op)
			} else {
				t.Failure = append(t.Failure, op)
			}
		default:
			return false
		}
	}
	return !f.bad
}

// compare returns nil if the comparison has other fields.
func (d *requestDecoder) compare(data []byte) *pb.Compare {
	if d.ncompares == len(d.compares) {
		d.compares = append(d.compares, &pb.Compare{})
	}
	c := d.compares[d.ncompares]
	d.ncompares++
	c.Result, c.Target, c.Key, c.TargetUnion, c.RangeEnd = 0, 0, nil, nil, nil
	f := fields{data: data}
	for f.next() {
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
			return nil
		}
	}
	if f.bad {
		return nil
	}
	return c
}

// op returns nil if the operation is of another kind.
func (d *requestDecoder) op(data []byte) *pb.RequestOp {
	if d.nops == len(d.ops) {
		d.ops = append(d.ops, &reusedOp{
			put: pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{}},
			del: pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{}},
			get: pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{}},
		})
	}
	r := d.ops[d.nops]
	d.nops++
	f := fields{data: data}
	if !f.next() || len(f.data) > 0 { // protobuf would merge two operations
		return nil
	}
	ok := false
	switch {
	case f.text(opPut):
		r.op.Request = &r.put
		ok = decodePut(f.bytes, r.put.RequestPut)
	case f.text(opDelete):
		r.op.Request = &r.del
		ok = decodeInterval(f.bytes, &r.del.RequestDeleteRange.Key, &r.del.RequestDeleteRange.RangeEnd)
	case f.text(opRange):
		r.op.Request = &r.get
		ok = decodeInterval(f.bytes, &r.get.RequestRange.Key, &r.get.RequestRange.RangeEnd)
	}
	if !ok {
		return nil
	}
	return &r.op
}

func decodePut(data []byte, p *pb.PutRequest) bool {
	p.Key, p.Value, p.Lease = nil, nil, 0
	f := fields{data: data}
	for f.next() {
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
	}
	return !f.bad
}

func decodeInterval(data []byte, key, end *[]byte) bool {
	*key, *end = nil, nil
	f := fields{data: data}
	for f.next() {
		switch {
		case f.text(rangeKey):
			*key = f.bytes
		case f.text(rangeEnd):
			*end = f.bytes
		default:
			return false
		}
	}
	return !f.bad
}
