package log

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/encoding/protowire"
)

// Segments have the format of etcd's wal package: a sequence of frames. A frame is an
// 8-byte little-endian length, whose top byte holds the number of padding bytes that
// follow, and a protobuf Record{type = 1, crc = 2, data = 3}. The crc continues from
// record to record and from segment to segment. A length of zero marks space that is
// allocated and not written yet.
//
// This package reads the format itself. The wal package's reader allocates several
// times per record, panics on some damage, takes a flipped bit in a length for a torn
// write, and needs a snapshot record to start at. A takeover has only a few
// milliseconds. The tests compare the two readers.

const (
	recordMetadata = 1
	recordEntry    = 2
	recordState    = 3
	recordCRC      = 4
	recordSnapshot = 5

	frameHeaderBytes = 8
	sectorBytes      = 512
	readChunkBytes   = 256 << 10
	// maxRecordBytes is longer than any record that a writer makes. A longer one is damage.
	maxRecordBytes = 1 << 31
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)

	// errEnd means that the segment has no more frames.
	errEnd = errors.New("end of segment")
	// errTorn means that the frame was not written completely.
	errTorn = errors.New("torn record")
)

type record struct {
	kind   uint64
	crc    uint32
	data   []byte // aliases the reader's buffer
	offset int64  // of the frame in its segment
}

// frameReader reads the frames of one segment file. It does not map the file into memory,
// because a living writer may truncate it.
type frameReader struct {
	f    *os.File
	name segmentName
	size int64
	crc  uint32 // of everything read so far; 0 means not known yet

	buf      []byte // bytes that were read; those from pos on are not parsed yet
	pos      int
	offset   int64 // of buf[pos] in the file
	retained bool  // an entry refers to buf, so buf must not be overwritten
}

func openFrames(dir string, name segmentName, crc uint32) (*frameReader, error) {
	f, err := os.Open(filepath.Join(dir, name.String()))
	if err != nil {
		return nil, fmt.Errorf("open segment: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("open segment: %w", err)
	}
	return &frameReader{f: f, name: name, size: st.Size(), crc: crc}, nil
}

func (r *frameReader) close() { _ = r.f.Close() }

// refresh drops what was read ahead, because the writer may have gone on.
func (r *frameReader) refresh() error {
	st, err := r.f.Stat()
	if err != nil {
		return fmt.Errorf("read segment %s: %w", r.name, err)
	}
	r.size, r.buf, r.pos, r.retained = st.Size(), nil, 0, false
	return nil
}

// peek returns the next n bytes, or fewer at the end of the file.
func (r *frameReader) peek(n int) ([]byte, error) {
	have := len(r.buf) - r.pos
	if have >= n {
		return r.buf[r.pos : r.pos+n], nil
	}
	want := max(n, readChunkBytes)
	if left := r.size - r.offset; int64(want) > left {
		want = int(max(left, int64(have)))
	}
	next := r.buf[:0]
	if r.retained || cap(next) < want {
		next, r.retained = make([]byte, 0, want), false
	}
	next = next[:copy(next[:have], r.buf[r.pos:])]
	got, err := r.f.ReadAt(next[have:want], r.offset+int64(have))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read segment %s: %w", r.name, err)
	}
	r.buf, r.pos = next[:have+got], 0
	return r.buf[:min(n, have+got)], nil
}

// next reads one record. It returns errEnd, errTorn, an ErrCorrupt or an error of the file.
// After any of them, offset is the end of the last whole record.
func (r *frameReader) next(rec *record) error {
	head, err := r.peek(frameHeaderBytes)
	if err != nil {
		return err
	}
	if len(head) == 0 {
		return errEnd
	}
	if len(head) < frameHeaderBytes {
		return errTorn
	}
	field := binary.LittleEndian.Uint64(head)
	if field == 0 {
		return errEnd
	}
	length, padding := int64(field&(1<<56-1)), int64(0)
	if field>>63 != 0 {
		padding = int64(field >> 56 & 7)
	}
	if length == 0 || length > maxRecordBytes || (length+padding)%8 != 0 {
		return corruptf(r.name.String(), r.offset, "impossible record length %d", length)
	}
	whole := min(frameHeaderBytes+length+padding, r.size-r.offset)
	frame, err := r.peek(int(whole))
	if err != nil {
		return err
	}
	body := frame[frameHeaderBytes:]
	if int64(len(body)) < length+padding {
		return r.unfinished(body, length, true)
	}
	if err := rec.parse(body[:length]); err != nil {
		return r.unfinished(body, length, false)
	}
	rec.offset = r.offset
	if rec.kind != recordCRC {
		crc := crc32.Update(r.crc, castagnoli, rec.data)
		if crc != rec.crc {
			return r.unfinished(body, length, false)
		}
		r.crc = crc
	}
	r.pos += len(frame)
	r.offset += int64(len(frame))
	return nil
}

// unfinished tells a torn record from a damaged one. A record is torn if it ends with the file
// or contains a disk sector of zeros. It is damaged if its own header contradicts the frame's
// length, because then that length was damaged.
func (r *frameReader) unfinished(body []byte, length int64, short bool) error {
	if !short && !hasZeroSector(body, r.offset+frameHeaderBytes) {
		return corruptf(r.name.String(), r.offset, "checksum mismatch")
	}
	if inner, ok := declaredLength(body, r.offset+frameHeaderBytes); ok && inner != length {
		return corruptf(r.name.String(), r.offset, "the frame's length is %d, but the record's own length is %d", length, inner)
	}
	return errTorn
}

func hasZeroSector(body []byte, offset int64) bool {
	var zeros [sectorBytes]byte
	for len(body) > 0 {
		n := min(sectorBytes-int(offset%sectorBytes), len(body))
		if bytes.Equal(body[:n], zeros[:n]) {
			return true
		}
		body, offset = body[n:], offset+int64(n)
	}
	return false
}

// declaredLength computes a record's length from its first bytes. ok is false if those bytes
// may be unwritten: the same disk sector must hold more than zeros after them.
func declaredLength(body []byte, offset int64) (int64, bool) {
	head := body[:min(sectorBytes-int(offset%sectorBytes), len(body))]
	var used int64
	for used < int64(len(head)) {
		num, typ, n := protowire.ConsumeTag(head[used:])
		if n < 0 {
			return 0, false
		}
		used += int64(n)
		v, n := protowire.ConsumeVarint(head[used:])
		if n < 0 {
			return 0, false
		}
		used += int64(n)
		if num == 3 && typ == protowire.BytesType {
			written := len(bytes.Trim(head[used:], "\x00")) > 0
			return used + int64(min(v, maxRecordBytes)), written
		}
		if typ != protowire.VarintType {
			return 0, false
		}
	}
	return 0, false
}

var errFields = errors.New("unexpected fields")

func (rec *record) parse(b []byte) error {
	*rec = record{}
	return fields(b, func(num protowire.Number, v uint64, data []byte) bool {
		switch {
		case num == 1 && data == nil:
			rec.kind = v
		case num == 2 && data == nil && v <= 1<<32-1:
			rec.crc = uint32(v)
		case num == 3 && data != nil:
			rec.data = data
		default:
			return false
		}
		return true
	})
}

// fields walks the varint and bytes fields of a message. Any other field, and one that f
// refuses, is an error. data is nil for a varint and never nil for bytes.
func fields(b []byte, f func(num protowire.Number, v uint64, data []byte) bool) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errFields
		}
		b = b[n:]
		var v uint64
		var data []byte
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			data, n = protowire.ConsumeBytes(b)
		default:
			return errFields
		}
		if n < 0 || !f(num, v, data) {
			return errFields
		}
		b = b[n:]
	}
	return nil
}

// parseEntry reads raftpb.Entry{Type = 1, Term = 2, Index = 3, Data = 4}.
func parseEntry(b []byte) (e Entry, err error) {
	err = fields(b, func(num protowire.Number, v uint64, data []byte) bool {
		switch {
		case num == 1 && data == nil:
			return v == 0 // EntryNormal
		case num == 2 && data == nil:
			e.Epoch = v
		case num == 3 && data == nil:
			e.Index = v
		case num == 4 && data != nil:
			e.Data = data[:len(data):len(data)]
		default:
			return false
		}
		return true
	})
	if err == nil && (e.Epoch == 0 || e.Index == 0) {
		err = errFields
	}
	return e, err
}

// parseSnapshot reads walpb.Snapshot{index = 1, term = 2, conf_state = 3}.
func parseSnapshot(b []byte) (p Position, err error) {
	err = fields(b, func(num protowire.Number, v uint64, data []byte) bool {
		switch {
		case num == 1 && data == nil:
			p.Index = v
		case num == 2 && data == nil:
			p.Epoch = v
		case num == 3 && data != nil:
		default:
			return false
		}
		return true
	})
	return p, err
}

// parseState checks a raftpb.HardState{term = 1, vote = 2, commit = 3}. This log has no votes.
// A state with one is refused, so that an entry cannot pass for a state.
func parseState(b []byte) error {
	return fields(b, func(num protowire.Number, _ uint64, data []byte) bool {
		return (num == 1 || num == 3) && data == nil
	})
}
