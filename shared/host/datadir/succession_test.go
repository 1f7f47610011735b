package datadir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func sample(epoch uint64) Succession {
	return Succession{
		ClusterID: 1<<63 + 5, Epoch: epoch, Slot: int(epoch%3) + 1,
		Leader: Leader{Address: "127.0.0.1:7400", PID: 100 + int(epoch), StartTime: 4711},
		Client: "127.0.0.1:2379", BootID: "b00t", At: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
	}
}

func TestSuccessionRoundTrip(t *testing.T) {
	d := openNew(t)
	if _, err := d.ReadSuccession(); !errors.Is(err, os.ErrNotExist) || errors.Is(err, ErrCorrupt) {
		t.Fatalf("missing: %v", err)
	}
	// Files that a crash in the middle of a write leaves behind do no harm.
	if err := os.WriteFile(d.successionPath()+".new", []byte(strings.Repeat("x", 5000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for epoch := uint64(1); epoch < 4; epoch++ {
		want := sample(epoch)
		if err := d.WriteSuccession(want); err != nil {
			t.Fatal(err)
		}
		want.Schema = schema
		if got, err := d.ReadSuccession(); err != nil || got != want {
			t.Errorf("read %+v, %v; want %+v", got, err, want)
		}
	}
	names, err := filepath.Glob(filepath.Join(d.Path(), "*"))
	if err != nil || len(names) != 2 { // slots and succession.json
		t.Errorf("left in the directory: %v, %v", names, err)
	}
}

func TestSuccessionRefusesNonsense(t *testing.T) {
	d := openNew(t)
	if err := d.WriteSuccession(sample(1)); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(d.successionPath())
	if err != nil {
		t.Fatal(err)
	}
	good := string(raw)
	for name, bad := range map[string]string{
		"empty":         "",
		"half":          good[:len(good)/2],
		"zeros":         string(make([]byte, len(good))),
		"trailing":      good + "{}",
		"unknown field": strings.Replace(good, `"epoch"`, `"epoc"`, 1),
		"other schema":  strings.Replace(good, `"schema": 1`, `"schema": 2`, 1),
		"epoch 0":       strings.Replace(good, `"epoch": 1`, `"epoch": 0`, 1),
		"epoch -1":      strings.Replace(good, `"epoch": 1`, `"epoch": -1`, 1),
		"slot 0":        strings.Replace(good, `"slot": 2`, `"slot": 0`, 1),
		"no address":    strings.Replace(good, `127.0.0.1:7400`, ``, 1),
		"port 0":        strings.Replace(good, `127.0.0.1:7400`, `127.0.0.1:0`, 1),
		"pid 0":         strings.Replace(good, `"pid": 101`, `"pid": 0`, 1),
		"too long":      good + strings.Repeat(" ", maxStateBytes),
	} {
		if bad == good {
			t.Fatalf("%s: the test changes nothing", name)
		}
		if err := os.WriteFile(d.successionPath(), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := d.ReadSuccession()
		if !errors.Is(err, ErrCorrupt) || s != (Succession{}) {
			t.Errorf("%s: %+v, %v", name, s, err)
		} else if !strings.Contains(err.Error(), d.successionPath()) {
			t.Errorf("%s: the error does not name the file: %v", name, err)
		}
	}
	if err := d.WriteSuccession(Succession{}); err == nil {
		t.Error("nonsense was written")
	}
}

// Readers never see a torn file, or an older file after a newer one.
func TestSuccessionIsReplacedAsAWhole(t *testing.T) {
	d := openNew(t)
	if err := d.WriteSuccession(sample(1)); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			var last uint64
			for ctx.Err() == nil {
				s, err := d.ReadSuccession()
				want := sample(s.Epoch)
				want.Schema = schema
				if err != nil || s != want || s.Epoch < last {
					t.Errorf("after epoch %d: %+v, %v", last, s, err)
					return
				}
				last = s.Epoch
			}
		})
	}
	for epoch := uint64(2); epoch < 300; epoch++ {
		if err := d.WriteSuccession(sample(epoch)); err != nil {
			t.Error(err)
			break
		}
	}
	stop()
	wg.Wait()
}

func TestWriteSuccessionFailsCleanly(t *testing.T) {
	d := openNew(t)
	if err := d.WriteSuccession(sample(1)); err != nil {
		t.Fatal(err)
	}
	// A directory in the place of the temporary file simulates a full disk.
	if err := os.Mkdir(d.successionPath()+".new", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.WriteSuccession(sample(2)); err == nil {
		t.Fatal("no error")
	}
	if s, err := d.ReadSuccession(); err != nil || s.Epoch != 1 {
		t.Errorf("read %+v, %v; want the old one", s, err)
	}
}

func FuzzDecodeSuccession(f *testing.F) {
	f.Add([]byte(`{"schema":1,"cluster_id":"5","epoch":1,"slot":1,"leader":{"address":"127.0.0.1:1","pid":1,"start_time":1},"client":"","boot_id":"b","at":"2026-01-02T03:04:05Z"}`))
	f.Add([]byte(`{"schema":1}`))
	f.Add([]byte("\x00\x00"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, raw []byte) {
		var s Succession
		if decodeState(raw, &s) != nil {
			return
		}
		// An accepted file is valid, and is the same after it was written and read again.
		path := filepath.Join(dir, fmt.Sprint(os.Getpid()))
		if err := writeState(path, &s); err != nil {
			t.Fatalf("accepted %q, but: %v", raw, err)
		}
		var again Succession
		if err := readState(path, &again); err != nil || !again.At.Equal(s.At) {
			t.Fatalf("accepted %q, read back %+v, %v", raw, again, err)
		}
		s.At, again.At = time.Time{}, time.Time{}
		if s != again {
			t.Fatalf("accepted %+v, read back %+v", s, again)
		}
	})
}

func BenchmarkWriteSuccession(b *testing.B) {
	d := openNew(b)
	for b.Loop() {
		if err := d.WriteSuccession(sample(1)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadSuccession(b *testing.B) {
	d := openNew(b)
	if err := d.WriteSuccession(sample(1)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := d.ReadSuccession(); err != nil {
			b.Fatal(err)
		}
	}
}
