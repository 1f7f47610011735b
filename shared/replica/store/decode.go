package store

import (
	"bytes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers that decodePlain knows.
const (
	requestPut    = 4
	requestHeader = 100
	headerID      = 1
	putKey        = 1
	putValue      = 2
)

// decodePlain decodes an entry that holds a put with only a key and a value, and no user. Most
// entries are like that. For all others it returns false, p must not be used, and the protobuf
// package has to decode the entry. The value shares memory with data. The key is a copy,
// because the index keeps it.
func decodePlain(data []byte, p *pb.PutRequest) (ok bool) {
	p.Key, p.Value = nil, nil
	header := false
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 || kind != protowire.BytesType {
			return false
		}
		field, k := protowire.ConsumeBytes(data[n:])
		if k < 0 {
			return false
		}
		data = data[n+k:]
		switch {
		case number == requestHeader && !header && anonymous(field):
			header = true
		case number == requestPut && p.Key == nil && decodeKeyValue(field, p):
		default:
			return false
		}
	}
	return p.Key != nil
}

// anonymous reports whether a header holds only the request's id.
func anonymous(header []byte) bool {
	number, kind, n := protowire.ConsumeTag(header)
	if n < 0 || number != headerID || kind != protowire.VarintType {
		return false
	}
	_, k := protowire.ConsumeVarint(header[n:])
	return k == len(header)-n
}

func decodeKeyValue(put []byte, p *pb.PutRequest) bool {
	for len(put) > 0 {
		number, kind, n := protowire.ConsumeTag(put)
		if n < 0 || kind != protowire.BytesType {
			return false
		}
		field, k := protowire.ConsumeBytes(put[n:])
		if k <= 0 || len(field) == 0 { // an empty field is not written
			return false
		}
		put = put[n+k:]
		switch {
		case number == putKey && p.Key == nil:
			p.Key = bytes.Clone(field)
		case number == putValue && p.Value == nil:
			p.Value = field[:len(field):len(field)]
		default:
			return false
		}
	}
	return p.Key != nil
}
