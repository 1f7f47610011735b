package wire

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/dynast-io/dynast/shared/prove/fuzzing"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/entry"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

// protoFactor is how much protobuf may allocate per byte. An empty message in a list needs two
// bytes on the wire, and a struct and its pointer in memory.
const protoFactor = 400

// refused checks that an error is one of this package and has a text.
func refused(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, ErrMalformed) || len(err.Error()) <= len(ErrMalformed.Error()) {
		t.Errorf("not a refusal that says what is wrong: %v", err)
	}
}

func FuzzRoster(f *testing.F) {
	whole := EncodeRoster(sampleRoster())
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add(EncodeRoster(&roster.Roster{}))
	f.Add(bytes.Repeat([]byte{0x32, 0}, 2000)) // two thousand members of nothing
	f.Fuzz(func(t *testing.T, b []byte) {
		var r *roster.Roster
		var err error
		fuzzing.Bounded(t, len(b), protoFactor, func() { r, err = DecodeRoster(b) })
		if err != nil {
			refused(t, err)
			return
		}
		again, err := DecodeRoster(EncodeRoster(r))
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Errorf("%+v became %+v, %v", r, again, err)
		}
	})
}

// sampleMessages holds a message of each kind that followers and leaders send.
func sampleMessages() (up, down []proto.Message) {
	member := FromMember(sampleRoster().Members[0])
	ros := EncodeRoster(sampleRoster())
	deaths := FromDeaths([]core.Death{{ID: sampleRoster().Members[1].ID, Reason: "killed", At: time.UnixMilli(1_700_000_000_000), ReplacedBy: sampleRoster().Members[0].Address}})
	up = []proto.Message{
		&FollowerMessage{Roster: ros, Body: &FollowerMessage_Hello{Hello: &Hello{Member: member, Last: &Position{Epoch: 3, Index: 9}, BootId: "boot", ClusterId: 7}}},
		&FollowerMessage{Body: &FollowerMessage_Ack{Ack: &Ack{Address: "127.0.0.1:7401", Index: 12}}},
		&FollowerMessage{Body: &FollowerMessage_Heartbeat{Heartbeat: &Heartbeat{Address: "127.0.0.1:7401", Index: 12, Applied: 11}}},
		&FollowerMessage{Body: &FollowerMessage_Hello{Hello: &Hello{}}},
	}
	down = []proto.Message{
		&LeaderMessage{Roster: ros, Epoch: 3, Commit: 9, Body: &LeaderMessage_Entries{Entries: FromEntries(entry.Position{Epoch: 2, Index: 8}, []entry.Entry{{Epoch: 2, Data: []byte("a")}, {Epoch: 3}})}},
		&LeaderMessage{Body: &LeaderMessage_Snapshot{Snapshot: &SnapshotChunk{Position: &Position{Epoch: 1, Index: 5}, Size: 3, Data: []byte("abc"), Last: true, Sha256: make([]byte, 32)}}},
		&LeaderMessage{Body: &LeaderMessage_Leave{Leave: &Leave{Reason: "told to"}}},
		&LeaderMessage{Body: &LeaderMessage_Deaths{Deaths: deaths}},
		&LeaderMessage{Body: &LeaderMessage_Entries{Entries: FromEntries(entry.Position{Epoch: 4, Index: 10}, []entry.Entry{{Epoch: 3}})}},
		&LeaderMessage{Body: &LeaderMessage_Entries{}},
	}
	return up, down
}

func seed(f *testing.F, messages []proto.Message) {
	for _, m := range messages {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
}

// FuzzFollowerMessage: what a leader reads from a follower.
func FuzzFollowerMessage(f *testing.F) {
	up, _ := sampleMessages()
	seed(f, up)
	f.Fuzz(func(t *testing.T, b []byte) {
		var m FollowerMessage
		var err error
		fuzzing.Bounded(t, len(b), protoFactor, func() { err = proto.Unmarshal(b, &m) })
		if err != nil || m.GetHello() == nil {
			return
		}
		peer, err := ToMember(m.GetHello().Member)
		if err != nil {
			refused(t, err)
			return
		}
		if again, err := ToMember(FromMember(peer)); err != nil || again != peer {
			t.Errorf("%+v became %+v, %v", peer, again, err)
		}
		last := ToPosition(m.GetHello().Last)
		if again := ToPosition(FromPosition(last)); again != last {
			t.Errorf("%s became %s", last, again)
		}
	})
}

// FuzzLeaderMessage: what a follower reads from its leader.
func FuzzLeaderMessage(f *testing.F) {
	_, down := sampleMessages()
	seed(f, down)
	f.Fuzz(func(t *testing.T, b []byte) {
		var m LeaderMessage
		var err error
		fuzzing.Bounded(t, len(b), protoFactor, func() { err = proto.Unmarshal(b, &m) })
		if err != nil {
			return
		}
		switch body := m.Body.(type) {
		case *LeaderMessage_Entries:
			es, err := ToEntries(body.Entries)
			if err != nil {
				refused(t, err)
				return
			}
			prev := ToPosition(body.Entries.GetPrev())
			checkRun(t, prev, es)
		case *LeaderMessage_Deaths:
			ds, err := ToDeaths(body.Deaths)
			if err != nil {
				refused(t, err)
				return
			}
			again, err := ToDeaths(FromDeaths(ds))
			if err != nil || !reflect.DeepEqual(again, ds) {
				t.Errorf("%+v became %+v, %v", ds, again, err)
			}
			for _, d := range ds {
				if _, err := d.At.MarshalJSON(); err != nil {
					t.Errorf("a death that no tree can show: %v", err)
				}
			}
		}
	})
}

// checkRun checks that entries follow their beginning without a gap, and that epochs never
// decrease.
func checkRun(t *testing.T, prev entry.Position, es []entry.Entry) {
	t.Helper()
	for _, e := range es {
		if e.Index != prev.Index+1 || e.Index == 0 || e.Epoch < prev.Epoch {
			t.Fatalf("%s after %s", e.Position(), prev)
		}
		prev = e.Position()
	}
}

// FuzzHandoff: the messages on the hand-off socket, in both directions.
func FuzzHandoff(f *testing.F) {
	member := FromMember(sampleRoster().Members[2])
	seed(f, []proto.Message{
		&HandoffRequest{Member: member, BootId: "boot"}, &HandoffRequest{},
		&HandoffResponse{Slot: 4, Roster: EncodeRoster(sampleRoster()), Config: []byte(`{"followers":"2"}`)},
		&HandoffResponse{Error: "no"},
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		var req HandoffRequest
		var resp HandoffResponse
		fuzzing.Bounded(t, len(b), protoFactor, func() {
			if proto.Unmarshal(b, &req) == nil && req.Member != nil {
				if _, err := ToMember(req.Member); err != nil {
					refused(t, err)
				}
			}
		})
		if proto.Unmarshal(b, &resp) == nil {
			if _, err := DecodeRoster(resp.Roster); err != nil {
				refused(t, err)
			}
		}
	})
}
