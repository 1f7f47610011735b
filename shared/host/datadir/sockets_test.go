package datadir

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The sockets work below a path that is too long for the kernel, and move from one leader to
// the next.
func TestLeadersSockets(t *testing.T) {
	d, err := Open(filepath.Join(t.TempDir(), strings.Repeat("d", 120)), true)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	for name, tc := range map[string]struct {
		listen func() (*net.UnixListener, error)
		dial   func() (net.Conn, error)
		mode   os.FileMode
	}{
		adminSocket:   {d.ListenAdmin, func() (net.Conn, error) { return d.DialAdmin(ctx, "") }, 0o666},
		handoffSocket: {d.ListenHandoff, func() (net.Conn, error) { return d.DialHandoff(ctx) }, 0o600},
	} {
		if _, err := tc.dial(); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%s: before there was a leader: %v", name, err)
		}
		old, err := tc.listen()
		if err != nil {
			t.Fatal(err)
		}
		// The next leader takes over the name, and keeps it when the old leader ends.
		l, err := tc.listen()
		if err != nil {
			t.Fatal(err)
		}
		old.Close()
		c, err := tc.dial()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c.Close()
		if m := mode(t, filepath.Join(d.Path(), name)); m != os.ModeSocket|tc.mode {
			t.Errorf("%s has mode %v", name, m)
		}
		l.Close() // or its process was killed
		if _, err := tc.dial(); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s: after the leader's end: %v", name, err)
		}
	}
}

func TestClusterID(t *testing.T) {
	d := openNew(t)
	if _, err := d.ClusterID(); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("before the first start: %v", err)
	}
	id, err := d.MakeClusterID()
	if err != nil || id == 0 {
		t.Fatalf("made %d, %v", id, err)
	}
	for _, get := range []func() (uint64, error){d.MakeClusterID, d.ClusterID} {
		if again, err := get(); err != nil || again != id {
			t.Errorf("again %d, %v; want %d", again, err, id)
		}
	}
	if other, err := openNew(t).MakeClusterID(); err != nil || other == id {
		t.Errorf("another cluster: id %d too, %v", other, err)
	}
	if err := os.WriteFile(d.clusterPath(), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if id, err := d.MakeClusterID(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("damaged: %d, %v", id, err)
	}
}

// The directory for temporary files is left unchanged.
func TestRuntimeDirectoryIsLeft(t *testing.T) {
	d, err := Open(filepath.Join(t.TempDir(), strings.Repeat("d", 120)), true)
	if err != nil {
		t.Fatal(err)
	}
	tmp, err := os.MkdirTemp("", "d") // short: the path of a socket is limited
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	t.Setenv("TMPDIR", tmp)
	t.Setenv("XDG_RUNTIME_DIR", "")
	t.Setenv("RUNTIME_DIRECTORY", "")
	entries := func() int {
		es, err := os.ReadDir(tmp)
		if err != nil {
			t.Fatal(err)
		}
		return len(es)
	}
	sockets, err := d.PluginSocketDir()
	if err != nil || entries() != 1 {
		t.Fatalf("%s: %v, %d entries", sockets, err, entries())
	}
	file := filepath.Join(sockets, "in-use")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.LeaveRuntimeDir(); err == nil || entries() != 1 {
		t.Fatalf("with somebody's socket in it: %v, %d entries", err, entries())
	}
	if again, err := d.PluginSocketDir(); err != nil || again != sockets {
		t.Fatalf("%s, %v", again, err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := d.LeaveRuntimeDir(); err != nil || entries() != 0 {
			t.Fatalf("%v, %d entries", err, entries())
		}
	}
	if _, err := d.PluginSocketDir(); err != nil {
		t.Fatal(err)
	}
}
