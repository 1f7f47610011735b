package output

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A writer never notices that its file is cut, and neither does a reader.
func TestNothingLostOrDoubled(t *testing.T) {
	onEach(t, func(t *testing.T, path string) {
		const lines = 60_000
		w := newWriter(t, path)
		k := newTestKeeper(t, path, Limits{MaxBytes: 256 << 10, MaxBackups: 1000})
		followed := followAll(t, path)
		written := make(chan struct{})
		go func() { defer close(written); w.write(lines) }()
		rotations := 0
		for done := false; !done; {
			select {
			case <-written:
				done = true
			default:
			}
			if tend(t, k).Rotated > 0 {
				rotations++
			}
		}
		if err := k.Close(time.Now()); err != nil {
			t.Fatal(err)
		}
		if rotations < 3 {
			t.Errorf("only %d rotations", rotations)
		}
		t.Logf("%d rotations", rotations)
		followed(lines)
		check(t, path, lines)
	})
}

var errKilled = errors.New("killed")

// A Keeper that ends at any step leaves everything as it should be for a reader and for the
// next Keeper.
func TestKilledAtEachStep(t *testing.T) {
	for _, step := range []string{"copy", "publish", "start", "punch", "phase", "collapse", "base", "index", "prune"} {
		t.Run(step, func(t *testing.T) {
			onEach(t, func(t *testing.T, path string) {
				w := newWriter(t, path)
				followed := followAll(t, path)
				reached := 0
				for range 4 {
					k := newTestKeeper(t, path, testLimits)
					k.step = func(name string) error {
						if name == step {
							reached++
							return errKilled
						}
						return nil
					}
					w.write(500)
					if _, err := k.Tend(time.Now()); err != nil && !errors.Is(err, errKilled) {
						t.Fatal(err)
					}
					k.release()
					w.write(100)
					check(t, path, w.n)
				}
				// After the first refusal, no collapse is tried.
				if reached == 0 && (step != "base" || collapses(t, path)) {
					t.Error("this step was never reached")
				}
				k := newTestKeeper(t, path, testLimits)
				segments, _, err := list(path)
				if err != nil || lastEnd(segments) > k.st.live.start || k.st.live.phase != idle {
					t.Errorf("after the recovery: %+v, rotated files %v, %v", k.st.live, segments, err)
				}
				tend(t, k)
				if err := k.Close(time.Now()); err != nil {
					t.Fatal(err)
				}
				if _, err := os.Stat(path + tempSuffix); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("the temporary file: %v", err)
				}
				check(t, path, w.n)
				followed(w.n)
			})
		})
	}
}

// collapses reports whether the file system can collapse ranges.
func collapses(t *testing.T, path string) bool {
	t.Helper()
	f, err := os.Create(path + ".other")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_COLLAPSE_RANGE, 0, 512<<10) == nil
}

// Text that repeats itself does not confuse the recovery. The contents of the file are the
// same before and after the range is removed.
func TestKilledAroundCollapseWithEqualLines(t *testing.T) {
	for _, step := range []string{"phase", "collapse", "base"} {
		path := filepath.Join(t.TempDir(), "output.log")
		f, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for range 3 {
			if _, err := f.WriteString(strings.Repeat("y\n", 16<<10)); err != nil {
				t.Fatal(err)
			}
			k := newTestKeeper(t, path, testLimits)
			k.step = func(name string) error {
				if name == step {
					return errKilled
				}
				return nil
			}
			if _, err := k.Tend(time.Now()); err != nil && !errors.Is(err, errKilled) {
				t.Fatal(err)
			}
			k.release()
			// As much as was cut off, so that the size does not tell either.
			if _, err := f.WriteString(strings.Repeat("y\n", 16<<10)); err != nil {
				t.Fatal(err)
			}
		}
		if err := newTestKeeper(t, path, testLimits).Close(time.Now()); err != nil {
			t.Fatal(err)
		}
		lines := 0
		r := NewReader(path)
		defer r.Close()
		if err := r.Read(t.Context(), func(l Line) error {
			lines++
			if l.Text != "y" {
				return fmt.Errorf("line %d is %q", lines, l.Text)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if want := 6 * 16 << 10; lines != want {
			t.Errorf("killed at %q: %d lines instead of %d", step, lines, want)
		}
	}
}

// A Keeper in another process is killed at random moments.
func TestKilledAtRandom(t *testing.T) {
	rnd := random(t)
	onEach(t, func(t *testing.T, path string) {
		w := newWriter(t, path)
		followed := followAll(t, path)
		for range 15 {
			kill := startKeeper(t, path)
			w.write(500 + rnd.IntN(3000))
			kill()
			check(t, path, w.n)
		}
		k := newTestKeeper(t, path, testLimits)
		tend(t, k)
		if err := k.Close(time.Now()); err != nil {
			t.Fatal(err)
		}
		check(t, path, w.n)
		followed(w.n)
		segments, _, err := list(path)
		if err != nil || len(segments) == 0 { // how many depends on how long the Keepers lived
			t.Errorf("%d rotated files: %v", len(segments), err)
		}
	})
}

// The limits hold, and the oldest output is removed first. The reader says that it is missing.
func TestLimits(t *testing.T) {
	onEach(t, func(t *testing.T, path string) {
		w := newWriter(t, path)
		k := newTestKeeper(t, path, Limits{MaxBytes: 16 << 10, MaxBackups: 2})
		r := NewReader(path)
		defer r.Close()
		w.write(1)
		if l, err := r.Next(t.Context()); err != nil || l.Text != numbered(0) {
			t.Fatalf("%+v, %v", l, err)
		}
		for range 50 {
			w.write(300)
			if got := tend(t, k); got.Bytes > 16<<10 {
				t.Fatalf("the live file has %d bytes", got.Bytes)
			}
		}
		segments, indexes, err := list(path)
		if err != nil || len(segments) != 2 {
			t.Errorf("rotated files: %v, %v", segments, err)
		}
		if len(indexes) > 4 {
			t.Errorf("%d index files", len(indexes))
		}
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil || st.Blocks*512 > 64<<10 {
			t.Errorf("the live file occupies %d bytes: %v", st.Blocks*512, err)
		}
		if err := k.Close(time.Now()); err != nil {
			t.Fatal(err)
		}
		l, err := r.Next(t.Context())
		if err != nil || !l.Gap {
			t.Errorf("the line after the gap: %+v, %v", l, err)
		}
		var last Line
		if err := r.Read(t.Context(), func(l Line) error { last = l; return nil }); err != nil || last.Text != numbered(w.n-1) {
			t.Errorf("the last line is %q: %v", last.Text, err)
		}
	})
}

// Without backups, rotated output is removed.
func TestNoBackups(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output.log")
	w := newWriter(t, path)
	k := newTestKeeper(t, path, Limits{MaxBytes: 16 << 10})
	w.write(1000)
	if got := tend(t, k); got.Rotated == 0 || got.Bytes > 16<<10 {
		t.Errorf("%+v", got)
	}
	if segments, _, err := list(path); err != nil || len(segments) != 0 {
		t.Errorf("rotated files: %v, %v", segments, err)
	}
	if err := k.Close(time.Now()); err != nil {
		t.Fatal(err)
	}
}

// When there is no room for a rotated file, the output stays in the live file, and is
// rotated when there is room again.
func TestDiskFull(t *testing.T) {
	dir := mountTmpfs(t, "2m")
	path := filepath.Join(dir, "output.log")
	w := newWriter(t, path)
	w.write(10_000)
	k := newTestKeeper(t, path, Limits{MaxBytes: 256 << 10, MaxBackups: 100})
	filler := filepath.Join(dir, "filler")
	fill(t, filler)
	now := time.Now()
	_, err := k.Tend(now)
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the error is %v", err)
	}
	check(t, path, w.n)
	if _, err := k.Tend(now.Add(retryAfter / 2)); errors.Is(err, unix.ENOSPC) && strings.Contains(err.Error(), "rotated") {
		t.Errorf("the rotation was tried again too early: %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	got, err := k.Tend(now.Add(2 * retryAfter))
	if err != nil || got.Rotated == 0 {
		t.Errorf("with room again: %+v, %v", got, err)
	}
	w.write(100)
	if err := k.Close(now.Add(3 * retryAfter)); err != nil {
		t.Fatal(err)
	}
	check(t, path, w.n)
}

// fill fills the file system, except for a part of what a rotated file needs.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size := int64(0)
	for {
		n, err := f.Write(make([]byte, 4096))
		size += int64(n)
		if errors.Is(err, unix.ENOSPC) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size - 64<<10); err != nil {
		t.Fatal(err)
	}
}

// Somebody deletes or renames the live file. The Keeper reports it and goes on, a reader
// loses nothing, and neither does one that comes after the program's next start.
func TestMoved(t *testing.T) {
	for name, move := range map[string]func(path string) error{
		"deleted": os.Remove,
		"renamed": func(path string) error { return os.Rename(path, path+".1") },
		"replaced": func(path string) error {
			return errors.Join(os.Rename(path, path+".1"), os.WriteFile(path, nil, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			onEach(t, func(t *testing.T, path string) {
				w := newWriter(t, path)
				k := newTestKeeper(t, path, testLimits)
				followed := followAll(t, path)
				w.write(500)
				if tend(t, k).Moved {
					t.Fatal("moved before it was")
				}
				if err := move(path); err != nil {
					t.Fatal(err)
				}
				w.write(500)
				if got := tend(t, k); !got.Moved || got.Rotated == 0 {
					t.Errorf("%+v", got)
				}
				w.write(10)
				check(t, path, w.n) // a new reader finds the file through the Keeper
				if err := k.Close(time.Now()); err != nil {
					t.Fatal(err)
				}
				check(t, path, w.n)

				again := newWriter(t, path)
				again.n = w.n
				k = newTestKeeper(t, path, testLimits)
				again.write(500)
				if got := tend(t, k); got.Moved {
					t.Error("the new file counts as moved")
				}
				check(t, path, again.n)
				followed(again.n)
				if err := k.Close(time.Now()); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// A new Keeper takes over a deleted file through a descriptor, but no other file.
func TestAdopt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output.log")
	w := newWriter(t, path)
	k := newTestKeeper(t, path, testLimits)
	w.write(500)
	tend(t, k)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	w.write(500)
	k.release()
	if _, err := NewKeeper(path, testLimits); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a Keeper without a file: %v", err)
	}
	other, err := os.Create(filepath.Join(t.TempDir(), "other"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := Adopt(path, other, testLimits); !errors.Is(err, ErrOtherFile) {
		t.Errorf("another file: %v", err)
	}
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", w.f.Fd()), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if k, err = Adopt(path, f, testLimits); err != nil {
		t.Fatal(err)
	}
	if got := tend(t, k); !got.Moved || got.Rotated == 0 {
		t.Errorf("%+v", got)
	}
	check(t, path, w.n)
	if err := k.Close(time.Now()); err != nil {
		t.Fatal(err)
	}
	check(t, path, w.n)
}

// Somebody empties the live file, as logrotate's copytruncate does.
func TestTruncated(t *testing.T) {
	onEach(t, func(t *testing.T, path string) {
		w := newWriter(t, path)
		k := newTestKeeper(t, path, testLimits)
		w.write(500)
		tend(t, k)
		r := NewReader(path)
		defer r.Close()
		if err := r.Read(t.Context(), func(Line) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
		if got := tend(t, k); !got.Truncated || got.Bytes != 0 {
			t.Errorf("%+v", got)
		}
		w.write(500)
		if got := tend(t, k); got.Truncated || got.Rotated == 0 {
			t.Errorf("%+v", got)
		}
		if l, err := r.Next(t.Context()); err != nil || l.Text != numbered(500) || l.Position%fileSpan != 0 {
			t.Errorf("the first new line: %+v, %v", l, err)
		}
		// Now while no Keeper watches.
		if err := k.Close(time.Now()); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
		w.write(1)
		k = newTestKeeper(t, path, testLimits)
		defer k.release()
		var last Line
		if err := r.Read(t.Context(), func(l Line) error { last = l; return nil }); err != nil || last.Text != numbered(1000) {
			t.Errorf("the last line: %+v, %v", last, err)
		}
	})
}

// Where a hole is left at the beginning of the file, its absence tells that somebody has
// emptied the file, even if it has grown beyond its former size since.
func TestTruncatedAndGrown(t *testing.T) {
	path := filepath.Join(mountTmpfs(t, "16m"), "output.log")
	w := newWriter(t, path)
	k := newTestKeeper(t, path, testLimits)
	w.write(500)
	tend(t, k)
	if err := k.Close(time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	w.write(2000)
	k = newTestKeeper(t, path, testLimits)
	defer k.release()
	r := NewReader(path)
	defer r.Close()
	lines := map[string]bool{}
	if err := r.Read(t.Context(), func(l Line) error { lines[l.Text] = true; return nil }); err != nil {
		t.Fatal(err)
	}
	for n := 500; n < w.n; n++ {
		if !lines[numbered(n)] {
			t.Fatalf("line %d is missing", n)
		}
	}
}

func TestOneKeeper(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output.log")
	newWriter(t, path)
	k := newTestKeeper(t, path, testLimits)
	if _, err := NewKeeper(path, testLimits); !errors.Is(err, ErrBusy) {
		t.Errorf("a second Keeper: %v", err)
	}
	k.release()
	newTestKeeper(t, path, testLimits).release()
}

func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output.log")
	w := newWriter(t, path)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	flags, err := unix.FcntlInt(w.f.Fd(), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_APPEND == 0 {
		t.Errorf("flags %#x, %v", flags, err)
	}
	if _, err := Open(filepath.Join(path, "below")); err == nil {
		t.Error("a file below a file was opened")
	}
	if _, err := NewKeeper(filepath.Dir(path), testLimits); err == nil {
		t.Error("a directory was kept")
	}
}
