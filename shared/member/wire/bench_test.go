package wire

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/dynast-io/dynast/shared/rules/entry"
)

// message packs a number of writes of a usual size, as a leader sends them.
func message(n int) *LeaderMessage {
	es := make([]entry.Entry, n)
	for i := range es {
		es[i] = entry.Entry{Index: 1<<20 + 1 + uint64(i), Epoch: 7, Data: make([]byte, 320)}
	}
	return &LeaderMessage{Roster: make([]byte, 300), Epoch: 7, Commit: 1 << 20,
		Body: &LeaderMessage_Entries{Entries: FromEntries(entry.Position{Epoch: 7, Index: 1 << 20}, es)}}
}

func BenchmarkEncodeEntries(b *testing.B) {
	for _, n := range []int{1, 32} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			m := message(n)
			es, err := ToEntries(m.GetEntries())
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				m.Body = &LeaderMessage_Entries{Entries: FromEntries(entry.Position{Epoch: 7, Index: 1 << 20}, es)}
				if _, err := proto.Marshal(m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecodeEntries(b *testing.B) {
	for _, n := range []int{1, 32} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			raw, err := proto.Marshal(message(n))
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				m := &LeaderMessage{}
				if err := proto.Unmarshal(raw, m); err != nil {
					b.Fatal(err)
				}
				if es, err := ToEntries(m.GetEntries()); err != nil || len(es) != n {
					b.Fatal(len(es), err)
				}
			}
		})
	}
}
