package replica

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/prove/fuzzing"
)

// FuzzSnapshotChunks cuts a database into chunks as the plan says, and adds the mistakes of the
// plan. A snapshot that is accepted equals what was sent. A rejected one leaves no file behind.
func FuzzSnapshotChunks(f *testing.F) {
	f.Add([]byte("a database"), []byte{3, 3, 200})
	f.Add([]byte("a database"), []byte{3, 3 | 1<<6, 200})
	f.Add([]byte("a database"), []byte{3, 3 | 2<<6, 200})
	f.Add([]byte("a database"), []byte{3 | 3<<6, 3, 200})
	f.Add([]byte{}, []byte{0})
	f.Add(bytes.Repeat([]byte{7}, 5000), bytes.Repeat([]byte{63}, 100))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data, plan []byte) {
		path := filepath.Join(dir, "incoming.db")
		wrong := false
		var s *SnapshotFile
		var whole bool
		var err error
		fuzzing.Bounded(t, len(data)+len(plan), 64, func() {
			if s, err = newSnapshotFile(path, &wire.SnapshotChunk{Size: int64(len(data))}); err != nil {
				t.Fatal(err)
			}
			offset := 0
			for i, b := range plan {
				n := min(int(b&63), len(data)-offset)
				c := &wire.SnapshotChunk{Offset: int64(offset), Size: int64(len(data)), Data: bytes.Clone(data[offset : offset+n])}
				offset += n
				if i == len(plan)-1 {
					c.Last = true
					sum := sha256.Sum256(data[:offset])
					c.Size, c.Sha256 = int64(offset), sum[:]
				}
				switch b >> 6 {
				case 1: // a hole, or one twice
					c.Offset += int64(b&63) - 20
					wrong = wrong || b&63 != 20
				case 2: // more than was announced
					c.Data = append(c.Data, make([]byte, len(data))...)
					wrong = wrong || len(data) > 0
				case 3: // another byte
					if len(c.Data) > 0 {
						c.Data[0] ^= 1
						wrong = true
					}
				}
				if whole, err = s.Add(c); whole || err != nil {
					return
				}
			}
		})
		switch {
		case whole && (wrong || err != nil):
			t.Errorf("%d chunks, one of them wrong, were accepted (%v)", len(plan), err)
		case whole:
			got, err := os.ReadFile(path)
			if err != nil || !bytes.HasPrefix(data, got) || int64(len(got)) != s.size {
				t.Errorf("the file has %d bytes (%v), but %d were sent", len(got), err, len(data))
			}
		case err != nil && (!wrong || !errors.Is(err, ErrSnapshot)):
			t.Errorf("refused: %v (wrong: %t)", err, wrong)
		}
		s.Discard()
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a rejected snapshot left files: %v", err)
		}
	})
}

func TestSnapshotsWithWrongSizes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "incoming.db")
	if _, err := newSnapshotFile(path, &wire.SnapshotChunk{Size: -1}); !errors.Is(err, ErrSnapshot) {
		t.Errorf("a negative size: %v", err)
	}
	// No disk has this much room. The file must be refused without a crash.
	s, err := newSnapshotFile(path, &wire.SnapshotChunk{Size: 1 << 62})
	if err == nil {
		if _, err = s.Add(&wire.SnapshotChunk{Size: 3, Data: []byte("abc"), Last: true}); !errors.Is(err, ErrSnapshot) {
			t.Errorf("a last chunk without a checksum: %v", err)
		}
		s.Discard()
	}
}
