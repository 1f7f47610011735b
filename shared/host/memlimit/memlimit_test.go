package memlimit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tree writes files below a directory of the test, and returns that directory.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const (
	mountV1 = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n36 31 0:33 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
	mountV2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
)

func TestRead(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		limit uint64
		path  string
		used  uint64
	}{
		"v2, the group's own": {limit: 1000, path: "a/b", used: 77, files: map[string]string{
			"proc/self/cgroup": "0::/a/b\n", "proc/self/mountinfo": mountV2,
			"sys/fs/cgroup/a/b/memory.max": "1000\n", "sys/fs/cgroup/a/memory.max": "max\n",
			"sys/fs/cgroup/a/b/memory.stat": "anon 70\nfile 900\nshmem 7\n"}},
		"v2, an ancestor's": {limit: 500, path: "a", used: 1, files: map[string]string{
			"proc/self/cgroup": "0::/a/b/c\n", "proc/self/mountinfo": mountV2,
			"sys/fs/cgroup/a/b/memory.max": "1000\n", "sys/fs/cgroup/a/memory.max": "500\n", "sys/fs/cgroup/a/memory.stat": "anon 1\nshmem 0\n"}},
		"v2, none": {files: map[string]string{
			"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": mountV2, "sys/fs/cgroup/a/memory.max": "max\n"}},
		"v2, no controller": {files: map[string]string{"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mountV2}},
		"v1": {limit: 272629760, path: "memory/x", used: 33, files: map[string]string{
			"proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/x\n0::/\n", "proc/self/mountinfo": mountV1,
			"sys/fs/cgroup/memory/x/memory.limit_in_bytes": "272629760\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
			"sys/fs/cgroup/memory/x/memory.stat": "rss 1\ntotal_rss 30\ntotal_shmem 3\ntotal_cache 5\n"}},
		"v1 in a container: the mount is the group": {limit: 9000, path: "memory", used: 4, files: map[string]string{
			"proc/self/cgroup": "4:memory:/docker/0123\n", "proc/self/mountinfo": strings.Replace(mountV1, "0:32 / ", "0:32 /docker/0123 ", 1),
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9000\n", "sys/fs/cgroup/memory/memory.stat": "total_rss 4\ntotal_shmem 0\n"}},
		"v1, a path of another namespace": {limit: 9000, path: "memory", used: 4, files: map[string]string{
			"proc/self/cgroup": "4:memory:/docker/0123\n", "proc/self/mountinfo": mountV1,
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9000\n", "sys/fs/cgroup/memory/memory.stat": "total_rss 4\n"}},
		"nonsense": {files: map[string]string{
			"proc/self/cgroup": "\n:::\nx\n", "proc/self/mountinfo": "1 2\n - \n" + mountV2, "sys/fs/cgroup/memory.max": "-5\n"}},
	} {
		root := tree(t, c.files)
		g, err := read(root)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if c.limit == 0 {
			if g != nil {
				t.Errorf("%s: %+v", name, g)
			}
			continue
		}
		if g == nil || g.LimitBytes != c.limit || g.Path != filepath.Join(root, "sys/fs/cgroup", c.path) {
			t.Errorf("%s: %+v", name, g)
			continue
		}
		if used, err := g.UsedBytes(); err != nil || used != c.used {
			t.Errorf("%s: %d in use, %v", name, used, err)
		}
	}
}

func TestUsedBytesErrors(t *testing.T) {
	root := tree(t, map[string]string{"a/memory.stat": "file 5\n", "b/memory.stat": "anon x\n"})
	for dir, want := range map[string]string{"a": "has no line for anon", "b": "anon of", "c": "no such file"} {
		g := Group{Path: filepath.Join(root, dir), used: v2.used}
		if _, err := g.UsedBytes(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

func TestHere(t *testing.T) {
	g, err := Read()
	if err != nil {
		t.Skip(err)
	}
	t.Logf("%+v", g)
}
