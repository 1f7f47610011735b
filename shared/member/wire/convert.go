package wire

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/entry"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

// MaxMembers bounds the size of a roster. More members on one host make no sense.
const MaxMembers = 1024

const (
	maxPID = 1 << 30
	// maxUnixMs is the end of the year 9999, the last time that JSON can express.
	maxUnixMs = 253402300799_999
)

// ErrMalformed is wrapped by every decoding error.
var ErrMalformed = errors.New("malformed message")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// FromMember encodes a member.
func FromMember(m roster.Member) *MemberInfo {
	return &MemberInfo{
		Address: m.Address.String(), Pid: int64(m.PID), StartTime: m.StartTime,
		Role: uint32(m.Role), State: uint32(m.State), Slot: uint32(m.Slot),
		Plugin: m.Plugin, Version: m.Version, ByHand: m.ByHand,
		Busy: m.Busy, OwesDefrag: m.OwesDefrag, Protocol: uint32(m.Protocol),
	}
}

// ToMember decodes a member.
func ToMember(i *MemberInfo) (roster.Member, error) {
	if i == nil {
		return roster.Member{}, malformed("a member is missing")
	}
	a, err := roster.ParseAddress(i.Address)
	if err != nil {
		return roster.Member{}, malformed("%v", err)
	}
	state := roster.State(i.State)
	switch {
	case i.State > 255 || !state.Valid():
		return roster.Member{}, malformed("member %s has the unknown state %d", a, i.State)
	case i.Role > uint32(roster.Leader):
		return roster.Member{}, malformed("member %s has the unknown role %d", a, i.Role)
	case i.Pid <= 0 || i.Pid > maxPID:
		return roster.Member{}, malformed("member %s has the invalid pid %d", a, i.Pid)
	case i.Slot > 1<<20:
		return roster.Member{}, malformed("member %s has the invalid slot %d", a, i.Slot)
	}
	return roster.Member{
		ID:   roster.ID{Address: a, PID: int(i.Pid), StartTime: i.StartTime},
		Role: roster.Role(i.Role), State: state, Slot: int(i.Slot),
		Plugin: i.Plugin, Version: i.Version, ByHand: i.ByHand,
		Busy: i.Busy, OwesDefrag: i.OwesDefrag, Protocol: int(i.Protocol),
	}, nil
}

// EncodeRoster returns the encoded roster that is part of every message.
func EncodeRoster(r *roster.Roster) []byte {
	m := &Roster{Epoch: r.Epoch, Version: r.Version, Client: r.Client, Followers: uint32(r.Followers)}
	if r.Successor.IsValid() {
		m.Successor = r.Successor.String()
	}
	if r.Leader.IsValid() {
		m.Leader = r.Leader.String()
	}
	if heir, ok := r.Heir(); ok {
		m.Heir = heir.String()
	}
	for _, mem := range r.Members {
		m.Members = append(m.Members, FromMember(mem))
	}
	b, err := proto.Marshal(m)
	if err != nil {
		panic("wire: cannot encode a roster: " + err.Error()) // only invalid UTF-8 can cause this, and a roster has none
	}
	return b
}

// DecodeRoster reads what EncodeRoster wrote.
func DecodeRoster(b []byte) (*roster.Roster, error) {
	var m Roster
	if err := proto.Unmarshal(b, &m); err != nil {
		return nil, malformed("roster: %v", err)
	}
	if len(m.Members) > MaxMembers {
		return nil, malformed("the roster has %d members, at most %d are allowed", len(m.Members), MaxMembers)
	}
	if m.Followers > MaxMembers {
		return nil, malformed("the roster asks for %d followers, at most %d are allowed", m.Followers, MaxMembers)
	}
	r := &roster.Roster{Epoch: m.Epoch, Version: m.Version, Client: m.Client, Followers: int(m.Followers)}
	for _, f := range []struct {
		text string
		to   *roster.Address
	}{{m.Leader, &r.Leader}, {m.Successor, &r.Successor}} {
		if f.text == "" {
			continue
		}
		a, err := roster.ParseAddress(f.text)
		if err != nil {
			return nil, malformed("roster: %v", err)
		}
		*f.to = a
	}
	for _, i := range m.Members {
		mem, err := ToMember(i)
		if err != nil {
			return nil, fmt.Errorf("roster: %w", err)
		}
		if _, twice := r.Find(mem.Address); twice {
			return nil, malformed("the roster has two members at %s", mem.Address)
		}
		r.Members = append(r.Members, mem)
	}
	r.Sort()
	return r, nil
}

// FromDeaths encodes the history of deaths.
func FromDeaths(ds []core.Death) *Deaths {
	out := &Deaths{}
	for _, d := range ds {
		i := &Death{Address: d.ID.Address.String(), Pid: int64(d.ID.PID), Reason: d.Reason, AtUnixMs: d.At.UnixMilli()}
		if d.ReplacedBy.IsValid() {
			i.ReplacedBy = d.ReplacedBy.String()
		}
		out.Deaths = append(out.Deaths, i)
	}
	return out
}

// ToDeaths decodes a history. Without an error the result is not nil.
func ToDeaths(m *Deaths) ([]core.Death, error) {
	if len(m.GetDeaths()) > MaxMembers {
		return nil, malformed("the history has too many deaths (%d)", len(m.GetDeaths()))
	}
	out := make([]core.Death, 0, len(m.GetDeaths()))
	for _, i := range m.GetDeaths() {
		a, err := roster.ParseAddress(i.Address)
		if err != nil {
			return nil, malformed("death: %v", err)
		}
		switch {
		case i.Pid <= 0 || i.Pid > maxPID:
			return nil, malformed("death of %s: invalid pid %d", a, i.Pid)
		case i.AtUnixMs < 0 || i.AtUnixMs > maxUnixMs:
			return nil, malformed("death of %s: invalid time %d ms", a, i.AtUnixMs)
		}
		d := core.Death{ID: roster.ID{Address: a, PID: int(i.Pid)}, Reason: i.Reason, At: time.UnixMilli(i.AtUnixMs)}
		if i.ReplacedBy != "" {
			if d.ReplacedBy, err = roster.ParseAddress(i.ReplacedBy); err != nil {
				return nil, malformed("death: %v", err)
			}
		}
		out = append(out, d)
	}
	return out, nil
}

// FromPosition encodes a position in the log.
func FromPosition(p entry.Position) *Position { return &Position{Epoch: p.Epoch, Index: p.Index} }

// ToPosition decodes a position. nil is the zero position.
func ToPosition(p *Position) entry.Position {
	return entry.Position{Epoch: p.GetEpoch(), Index: p.GetIndex()}
}

// FromEntries encodes a sequence of entries that follows prev.
func FromEntries(prev entry.Position, es []entry.Entry) *Entries {
	n := 0
	for _, e := range es {
		n += protowire.SizeVarint(e.Epoch) + protowire.SizeBytes(len(e.Data))
	}
	packed := make([]byte, 0, n)
	for _, e := range es {
		packed = protowire.AppendVarint(packed, e.Epoch)
		packed = protowire.AppendBytes(packed, e.Data)
	}
	return &Entries{Prev: FromPosition(prev), Packed: packed}
}

// ToEntries decodes a sequence of entries and numbers them. The entries share memory with the
// message.
func ToEntries(m *Entries) ([]entry.Entry, error) {
	last := ToPosition(m.GetPrev())
	n, err := countEntries(m.GetPacked())
	if err != nil {
		return nil, err
	}
	out := make([]entry.Entry, 0, n)
	for rest := m.GetPacked(); len(rest) > 0; {
		epoch, n := protowire.ConsumeVarint(rest)
		data, k := protowire.ConsumeBytes(rest[n:])
		rest = rest[n+k:]
		if epoch < last.Epoch {
			return nil, malformed("entry %d has epoch %d after epoch %d", last.Index+1, epoch, last.Epoch)
		}
		last = entry.Position{Epoch: epoch, Index: last.Index + 1}
		e := entry.Entry{Index: last.Index, Epoch: epoch}
		if len(data) > 0 {
			e.Data = data[:len(data):len(data)]
		}
		out = append(out, e)
	}
	return out, nil
}

// countEntries counts encoded entries and checks that all are complete.
func countEntries(packed []byte) (count int, err error) {
	for len(packed) > 0 {
		n := protowire.ConsumeFieldValue(0, protowire.VarintType, packed)
		if n >= 0 {
			packed = packed[n:]
			n = protowire.ConsumeFieldValue(0, protowire.BytesType, packed)
		}
		if n < 0 {
			return 0, malformed("entry %d of a message: %v", count+1, protowire.ParseError(n))
		}
		packed = packed[n:]
		count++
	}
	return count, nil
}
