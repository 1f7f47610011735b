package datadir

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func openNew(t testing.TB) *Dir {
	t.Helper()
	d, err := Open(filepath.Join(t.TempDir(), "data"), true)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestOpenMakesADirectoryOfItsOwn(t *testing.T) {
	base := t.TempDir()
	path := filepath.Join(base, "a", "b", "data")
	if _, err := Open(path, false); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("open without create: %v", err)
	}
	d, err := Open(path, true)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v; want 0700", info.Mode(), err)
	}
	// A relative path and a link lead to the same directory.
	link := filepath.Join(base, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Join(base, "a"))
	for _, same := range []string{link, "b/data", "./b/../b/data/"} {
		e, err := Open(same, false)
		if err != nil || e.Path() != d.Path() || !filepath.IsAbs(e.Path()) {
			t.Errorf("open %s: %v, %v; want %s", same, e, err, d.Path())
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	for mode, safe := range map[os.FileMode]bool{
		0o700: true, 0o750: true, 0o755: true, 0o500: true,
		0o770: false, 0o777: false, 0o702: false, 0o720: false,
	} {
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := Open(path, false)
		if safe && err != nil || !safe && !errors.Is(err, ErrUnsafe) {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, create := range []bool{false, true} {
		if _, err := Open(file, create); !errors.Is(err, unix.ENOTDIR) {
			t.Errorf("open a file: %v", err)
		}
	}
}

func TestOpenRefusesAnotherUsersDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a directory away")
	}
	d := openNew(t)
	if err := os.Chown(d.Path(), 4242, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(d.Path(), true); !errors.Is(err, ErrUnsafe) {
		t.Errorf("open as a member: %v", err)
	}
	if _, err := OpenForReading(d.Path()); err != nil {
		t.Errorf("open for reading: %v", err)
	}
}

func TestSlots(t *testing.T) {
	d := openNew(t)
	if slots, err := d.Slots(); err != nil || len(slots) != 0 {
		t.Fatalf("slots %v, %v", slots, err)
	}
	for _, n := range []int{10, 2, 1} {
		if err := errors.Join(d.Slot(n).Make(), d.Slot(n).Make()); err != nil {
			t.Fatal(err)
		}
	}
	for _, foreign := range []string{"007", "0", "-1", "lost+found", "3.old"} {
		if err := os.Mkdir(filepath.Join(d.Path(), "slots", foreign), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(d.Path(), "slots", "5"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if slots, err := d.Slots(); err != nil || !slices.Equal(slots, []int{1, 2, 10}) {
		t.Errorf("slots %v, %v", slots, err)
	}
	if err := os.RemoveAll(filepath.Join(d.Path(), "slots")); err != nil {
		t.Fatal(err)
	}
	if slots, err := d.Slots(); err != nil || slots != nil {
		t.Errorf("without the directory: slots %v, %v", slots, err)
	}
}

// Slots that were never opened and slots with a damaged file are left out.
func TestMetas(t *testing.T) {
	d := openNew(t)
	if ms, err := d.Metas(); err != nil || len(ms) != 0 {
		t.Errorf("without slots: %v, %v", ms, err)
	}
	for n := 1; n <= 3; n++ {
		if err := d.Slot(n).Make(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(d.Slot(1).Meta(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Slot(3).WriteMeta(SlotMeta{BootID: "b", Address: "127.0.0.1:7401", PID: 7, StartTime: 8}); err != nil {
		t.Fatal(err)
	}
	if ms, err := d.Metas(); err != nil || len(ms) != 1 || ms[0].PID != 7 {
		t.Errorf("read %+v, %v", ms, err)
	}
}

func TestSlotMeta(t *testing.T) {
	s := openNew(t).Slot(3)
	if err := s.Make(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReadMeta(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if err := s.WriteMeta(SlotMeta{BootID: "b", Address: "127.0.0.1:7401", PID: 7, StartTime: 8}); err != nil {
		t.Fatal(err)
	}
	m, err := s.ReadMeta()
	if err != nil || m.BootID != "b" || m.Address != "127.0.0.1:7401" || m.PID != 7 || m.StartTime != 8 || m.At.IsZero() {
		t.Errorf("read %+v, %v", m, err)
	}
	if err := s.WriteMeta(SlotMeta{Address: "127.0.0.1:7401", PID: 7}); err == nil {
		t.Error("written without a boot id")
	}
	if err := os.WriteFile(s.Meta(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReadMeta(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("damaged: %v", err)
	}
}
