package tree

import (
	"reflect"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/prove/fuzzing"
)

// FuzzDecode: what a command reads from the admin socket. What is accepted can
// be shown, and survives being encoded again.
func FuzzDecode(f *testing.F) {
	whole := &Tree{Schema: Schema, Epoch: 3, Leader: "127.0.0.1:7400", Heir: "127.0.0.1:7401", Client: "127.0.0.1:2379",
		Members: []Member{{Address: "127.0.0.1:7400", PID: 4, Role: "leader", State: "serving", Slot: 1}},
		Deaths:  []Death{{Address: "127.0.0.1:7402", PID: 3, Reason: "killed", At: time.Unix(1_700_000_000, 0).UTC()}}}
	b, err := whole.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Add([]byte(`{"schema":2}`))
	f.Add([]byte(`{"schema":1,"members":[{},{}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var tr *Tree
		var err error
		fuzzing.Bounded(t, len(b), 400, func() { tr, err = Decode(b) })
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without a text")
			}
			return
		}
		raw, err := tr.Encode()
		if err != nil {
			t.Fatalf("accepted, and cannot be encoded: %v", err)
		}
		again, err := Decode(raw)
		if err != nil || !reflect.DeepEqual(again, tr) {
			t.Errorf("%+v became %+v, %v", tr, again, err)
		}
	})
}
