package datadir

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// shortTemp returns a temporary directory with a short path. t.TempDir's path contains the
// test's name, which leaves too little room for sockets.
func shortTemp(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "dd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// openShort opens a new data directory in an environment without runtime directories.
func openShort(t *testing.T) *Dir {
	t.Helper()
	t.Setenv("RUNTIME_DIRECTORY", "")
	t.Setenv("XDG_RUNTIME_DIR", "")
	d, err := Open(filepath.Join(shortTemp(t), "d"), true)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func makeRuntime(t *testing.T, d *Dir) string {
	t.Helper()
	dir, err := d.MakeRuntimeDir()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func mode(t *testing.T, path string) os.FileMode {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode()
}

func TestRuntimeDirFollowsTheEnvironment(t *testing.T) {
	d := openShort(t)
	service, session := shortTemp(t), shortTemp(t)
	for _, tc := range []struct{ service, session, want string }{
		{service + ":/elsewhere", session, service + "/" + d.hash()},
		{"", session, session + "/dynast/" + d.hash()},
		{"relative", "relative", d.Path() + "/run"},
		{"/proc/nowhere", "", d.Path() + "/run"}, // cannot be made: the next one
	} {
		os.Remove(d.runtimePath())
		t.Setenv("RUNTIME_DIRECTORY", tc.service)
		t.Setenv("XDG_RUNTIME_DIR", tc.session)
		got := makeRuntime(t, d)
		if got != tc.want {
			t.Errorf("%+v: %s", tc, got)
		}
		if m := mode(t, got); m != os.ModeDir|0o700 {
			t.Errorf("%s has mode %v", got, m)
		}
	}
}

// Processes with another environment use the recorded directory.
func TestRuntimeDirIsTheSameForAll(t *testing.T) {
	d := openShort(t)
	if _, err := d.RuntimeDir(); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("before there was a leader: %v", err)
	}
	t.Setenv("XDG_RUNTIME_DIR", shortTemp(t))
	want := makeRuntime(t, d)
	t.Setenv("RUNTIME_DIRECTORY", shortTemp(t))
	t.Setenv("XDG_RUNTIME_DIR", shortTemp(t))
	other, err := OpenForReading(d.Path())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := other.RuntimeDir(); err != nil || got != want {
		t.Errorf("another process: %s, %v; want %s", got, err, want)
	}
	// A later leader keeps it until it is gone.
	if got := makeRuntime(t, d); got != want {
		t.Errorf("an heir: %s, want %s", got, want)
	}
	if err := os.RemoveAll(want); err != nil {
		t.Fatal(err)
	}
	if _, err := other.RuntimeDir(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after it was removed: %v", err)
	}
	if got := makeRuntime(t, d); got == want || !strings.HasPrefix(got, os.Getenv("RUNTIME_DIRECTORY")) {
		t.Errorf("after it was removed: %s", got)
	}
}

func TestRuntimeDirOfALongPath(t *testing.T) {
	openShort(t) // for the environment
	base := shortTemp(t)
	t.Setenv("TMPDIR", filepath.Join(base, strings.Repeat("t", 90))) // missing, and too long
	d, err := Open(filepath.Join(base, strings.Repeat("d", 100)), true)
	if err != nil {
		t.Fatal(err)
	}
	dir := makeRuntime(t, d)
	defer os.RemoveAll(dir)
	if !strings.HasPrefix(dir, "/tmp/dynast-") || mode(t, dir) != os.ModeDir|0o700 {
		t.Errorf("%s, mode %v", dir, mode(t, dir))
	}
	if got := makeRuntime(t, d); got != dir {
		t.Errorf("the second time %s, the first %s", got, dir)
	}
	plugins, err := d.PluginSocketDir()
	if err != nil {
		t.Fatal(err)
	}
	// The kernel must accept the longest name that go-plugin makes.
	path := filepath.Join(filepath.Dir(plugins), longestSocketName)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestRuntimeDirIsNotTrustedBlindly(t *testing.T) {
	d := openShort(t)
	dir := makeRuntime(t, d)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := d.RuntimeDir(); !errors.Is(err, ErrUnsafe) {
		t.Errorf("others can write it: %v", err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(shortTemp(t), dir); err != nil {
		t.Fatal(err)
	}
	if _, err := d.RuntimeDir(); !errors.Is(err, ErrUnsafe) {
		t.Errorf("a link: %v", err)
	}
	t.Setenv("TMPDIR", shortTemp(t))
	if got := makeRuntime(t, d); !strings.HasPrefix(got, os.Getenv("TMPDIR")) {
		t.Errorf("made %s in spite of the link", got)
	}
	if err := os.WriteFile(d.runtimePath(), []byte(`{"schema":1,"dir":"relative"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.RuntimeDir(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a relative path: %v", err)
	}
}

func TestSweepSockets(t *testing.T) {
	d := openShort(t)
	plugins, err := d.PluginSocketDir()
	if err != nil {
		t.Fatal(err)
	}
	socket := func(name string) string {
		path := filepath.Join(plugins, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false) // as after SIGKILL
		l.Close()
		return path
	}
	used, stale, bare := socket("plugin-dir1/plugin1"), socket("plugin-dir2/plugin2"), socket("plugin3")
	file := filepath.Join(plugins, "plugin-dir4", "file")
	if err := errors.Join(os.Mkdir(filepath.Dir(file), 0o700), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := d.SweepSockets(func(path string) bool { return path == used }); err != nil {
			t.Fatal(err)
		}
	}
	// Directories that vanish meanwhile are ignored, and a directory in use is not searched.
	starting, gone, late := filepath.Join(plugins, "plugin-dir5"), socket("plugin-dir6/plugin6"), socket("plugin-dir7/plugin7")
	if err := os.Mkdir(starting, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.SweepSockets(func(path string) bool {
		if path == filepath.Dir(gone) {
			if err := os.RemoveAll(path); err != nil {
				t.Error(err)
			}
		}
		return path == used || path == starting
	}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{starting: true, late: false, filepath.Dir(late): false, used: true, file: true, plugins: true, stale: false, filepath.Dir(stale): false, bare: false} {
		if _, err := os.Lstat(path); (err == nil) != want {
			t.Errorf("%s is there: %v, want %v", path, err == nil, want)
		}
	}
}
