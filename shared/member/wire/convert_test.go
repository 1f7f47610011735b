package wire

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/entry"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

func sampleRoster() *roster.Roster {
	at := func(s string) roster.Address {
		a, err := roster.ParseAddress(s)
		if err != nil {
			panic(err)
		}
		return a
	}
	r := &roster.Roster{Epoch: 3, Version: 9, Leader: at("127.0.0.1:7400"), Client: "127.0.0.1:2379", Successor: at("127.0.0.1:9999"), Followers: 5, Members: []roster.Member{
		{ID: roster.ID{Address: at("127.0.0.1:7402"), PID: 12, StartTime: 1}, State: roster.InSync, Slot: 2, Plugin: "/run/p/a", Version: "v1"},
		{ID: roster.ID{Address: at("127.0.0.1:7400"), PID: 10, StartTime: 2}, Role: roster.Leader, State: roster.Serving, Slot: 1},
		{ID: roster.ID{Address: at("127.0.0.1:7401"), PID: 11, StartTime: 3}, State: roster.Starting, Slot: 3, ByHand: true, Busy: true, OwesDefrag: true, Protocol: 1},
	}}
	r.Sort()
	return r
}

func TestRosterSurvivesTheWire(t *testing.T) {
	want := sampleRoster()
	got, err := DecodeRoster(EncodeRoster(want))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
}

func TestMalformedRostersAreRefused(t *testing.T) {
	for name, change := range map[string]func(*Roster){
		"no port":       func(r *Roster) { r.Members[0].Address = "127.0.0.1" },
		"a name":        func(r *Roster) { r.Members[0].Address = "localhost:1" },
		"pid 0":         func(r *Roster) { r.Members[0].Pid = 0 },
		"unknown state": func(r *Roster) { r.Members[0].State = 77 },
		"huge state":    func(r *Roster) { r.Members[0].State = 256 },
		"unknown role":  func(r *Roster) { r.Members[0].Role = 2 },
		"slot":          func(r *Roster) { r.Members[0].Slot = 1 << 30 },
		"leader":        func(r *Roster) { r.Leader = "x" },
		"address twice": func(r *Roster) { r.Members[1].Address = r.Members[0].Address },
		"no member":     func(r *Roster) { r.Members[0] = &MemberInfo{} },
		"far too many":  func(r *Roster) { r.Members = make([]*MemberInfo, MaxMembers+1) },
	} {
		var m Roster
		if err := proto.Unmarshal(EncodeRoster(sampleRoster()), &m); err != nil {
			t.Fatal(err)
		}
		change(&m)
		for i := range m.Members {
			if m.Members[i] == nil {
				m.Members[i] = &MemberInfo{}
			}
		}
		b, err := proto.Marshal(&m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeRoster(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDeathsSurviveTheWire(t *testing.T) {
	r := sampleRoster()
	want := []core.Death{
		{ID: roster.ID{Address: r.Leader, PID: 10}, Reason: "signal: killed", At: time.UnixMilli(1700000000123), ReplacedBy: r.Members[1].Address},
		{ID: roster.ID{Address: r.Members[2].Address, PID: 12}, Reason: "silent", At: time.UnixMilli(1700000000456)},
	}
	got, err := ToDeaths(FromDeaths(want))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	if none, err := ToDeaths(FromDeaths(nil)); err != nil || none == nil {
		t.Errorf("an empty history: %v, %v; it must differ from none", none, err)
	}
}

func TestEntriesSurviveTheWire(t *testing.T) {
	want := []entry.Entry{{Index: 11, Epoch: 2, Data: []byte("a")}, {Index: 12, Epoch: 3}, {Index: 13, Epoch: 1 << 40, Data: make([]byte, 300)}}
	m := FromEntries(entry.Position{Epoch: 2, Index: 10}, want)
	got, err := ToEntries(m)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := ToEntries(FromEntries(entry.Position{Epoch: 4, Index: 10}, want)); !errors.Is(err, ErrMalformed) {
		t.Errorf("an epoch that goes back: %v", err)
	}
	for n := range m.Packed { // cut off anywhere: a beginning of the entries, or refused
		got, err := ToEntries(&Entries{Prev: m.Prev, Packed: m.Packed[:n]})
		if err == nil && (len(got) == len(want) || len(got) > 0 && !reflect.DeepEqual(got, want[:len(got)])) || err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("%d bytes: %+v, %v", n, got, err)
		}
	}
	// Appending to the data of one entry must not reach into the next.
	_ = append(got[0].Data, 0xff)
	if again, err := ToEntries(m); err != nil || !reflect.DeepEqual(again, want) {
		t.Errorf("after an append: %+v, %v", again, err)
	}
}

// FuzzDecode: any bytes from the wire are decoded or refused, without a panic. An accepted
// message decodes to the same after it was encoded again.
func FuzzDecode(f *testing.F) {
	f.Add(EncodeRoster(sampleRoster()))
	f.Add([]byte{})
	rng := rand.New(rand.NewPCG(1, 2))
	for range 8 {
		b := EncodeRoster(sampleRoster())
		b[rng.IntN(len(b))] ^= byte(1 << rng.IntN(8))
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := DecodeRoster(b); err == nil {
			again, err := DecodeRoster(EncodeRoster(r))
			if err != nil || !reflect.DeepEqual(again, r) {
				t.Errorf("%+v became %+v, %v", r, again, err)
			}
		}
		var d Deaths
		if proto.Unmarshal(b, &d) == nil {
			_, _ = ToDeaths(&d)
		}
		var lm LeaderMessage
		if proto.Unmarshal(b, &lm) == nil && lm.GetEntries() != nil {
			_, _ = ToEntries(lm.GetEntries())
		}
		if es, err := ToEntries(&Entries{Packed: b}); err == nil {
			again, err := ToEntries(FromEntries(entry.Position{}, es))
			if err != nil || !reflect.DeepEqual(again, es) {
				t.Errorf("%+v became %+v, %v", es, again, err)
			}
		}
		var h Hello
		if proto.Unmarshal(b, &h) == nil {
			_, _ = ToMember(h.Member)
		}
	})
}
