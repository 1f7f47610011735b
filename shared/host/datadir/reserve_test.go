package datadir

import (
	"os"
	"testing"
)

// TestReservedRoomIsUsed: the reserved file itself becomes succession.json, so no new block is
// needed on a full disk.
func TestReservedRoomIsUsed(t *testing.T) {
	d := openNew(t)
	for epoch := uint64(1); epoch < 4; epoch++ {
		for range 2 { // the second time there is nothing to do
			if err := d.ReserveSuccession(); err != nil {
				t.Fatal(err)
			}
		}
		spare, err := os.Stat(d.successionPath() + spareSuffix)
		if err != nil || spare.Size() != spareBytes {
			t.Fatalf("reserve: %v, %v", spare, err)
		}
		want := sample(epoch)
		if err := d.WriteSuccession(want); err != nil {
			t.Fatal(err)
		}
		want.Schema = schema
		if got, err := d.ReadSuccession(); err != nil || got != want {
			t.Errorf("read %+v, %v; want %+v", got, err, want)
		}
		now, err := os.Stat(d.successionPath())
		if err != nil || !os.SameFile(spare, now) {
			t.Errorf("succession.json is another file than the one in reserve: %v", err)
		}
	}
}
