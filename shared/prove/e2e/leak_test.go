package e2e

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/dynast-io/dynast/shared/observe/tree"
	"github.com/dynast-io/dynast/shared/prove/chaos"
)

// resources counts what a cluster uses while all its followers are in sync.
type resources struct {
	fds        int // of the leader
	follower   int // descriptors of the follower that has the most
	goroutines int // of the leader
	processes  int
	slots      int
	sockets    int
	files      int // files below the data directory
	kibibytes  int // their size on disk
}

var goroutines = regexp.MustCompile(`(?m)^go_goroutines (\d+)$`)

func (c *cluster) resources(tr *tree.Tree) resources {
	c.t.Helper()
	k := resources{processes: len(c.everyone())}
	for _, m := range tr.Members {
		n := len(descriptors(m.PID))
		if m.Address == tr.Leader {
			k.fds = n
		} else {
			k.follower = max(k.follower, n)
		}
	}
	resp, err := http.Get("http://" + c.client + "/metrics")
	if err != nil {
		c.t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		c.t.Fatal(err)
	}
	if found := goroutines.FindSubmatch(body); found != nil {
		k.goroutines, _ = strconv.Atoi(string(found[1]))
	}
	http.DefaultClient.CloseIdleConnections()
	err = filepath.WalkDir(c.dir, func(path string, e fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil // a temporary name
		}
		if err != nil {
			return err
		}
		k.files++
		if strings.HasPrefix(e.Name(), "plugin-dir") {
			k.sockets++
		}
		if filepath.Base(filepath.Dir(path)) == "slots" {
			k.slots++
		}
		if info, err := e.Info(); err == nil {
			k.kibibytes += int(info.Sys().(*syscall.Stat_t).Blocks / 2)
		}
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return k
}

// descriptors returns the targets of a process's descriptors.
func descriptors(pid int) map[string]string {
	found := map[string]string{}
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil {
			found[filepath.Base(link)] = to
		}
	}
	return found
}

// TestTakeoversLeaveNothingBehind kills one leader after the other. Each generation of processes
// is started by the previous one. So if one generation does not close or remove something, all
// later ones have it too. DYNAST_E2E_TAKEOVERS=200 makes the test longer.
func TestTakeoversLeaveNothingBehind(t *testing.T) {
	n := 15
	if more, err := strconv.Atoi(os.Getenv("DYNAST_E2E_TAKEOVERS")); err == nil {
		n = max(more, n)
	}
	// A dead process's socket is removed once it is older than the longest start.
	c := start(t, withExtra(`spawn { timeout = "3s" }`))
	cl := c.dial()
	var all []resources
	for i := range n {
		before := c.full()
		for j := range 5 {
			put(t, cl, fmt.Sprint("key", j), fmt.Sprint(i))
		}
		c.signal(leaderOf(before), syscall.SIGKILL)
		c.wait("another member leads", func(t *tree.Tree) bool { return t.Leader != before.Leader })
		put(t, cl, "taken over", fmt.Sprint(i))
		all = append(all, c.resources(c.full()))
	}
	t.Logf("at the beginning: %+v", all[4])
	t.Logf("at the end:       %+v", all[n-1])
	// The first few generations do not count, because no leader started the process of "up".
	early, late := all[4:4+max(n/5, 4)], all[n-max(n/5, 4):]
	for name, f := range map[string]struct {
		of    func(resources) int
		slack int
	}{
		"descriptors of the leader": {func(k resources) int { return k.fds }, 4},
		"descriptors of a follower": {func(k resources) int { return k.follower }, 4},
		"goroutines of the leader":  {func(k resources) int { return k.goroutines }, 12},
		"processes":                 {func(k resources) int { return k.processes }, 0},
		"slots":                     {func(k resources) int { return k.slots }, 1},
		"kibibytes on the disk":     {func(k resources) int { return k.kibibytes }, 8 << 10},
		"files other than sockets":  {func(k resources) int { return k.files - 2*k.sockets }, 12},
	} {
		if a, b := median(early, f.of), median(late, f.of); b > a+f.slack {
			t.Errorf("%s: %d at the beginning, %d after %d takeovers", name, a, b, n)
		}
	}
	tr := c.full()
	eventually(t, "the sockets of dead processes are removed", func() bool { return c.resources(tr).sockets <= len(tr.Members) })
	sameProcesses(t, tr, c.full())
	if t.Failed() {
		for _, m := range tr.Members {
			open := descriptors(m.PID)
			for _, fd := range slices.SortedFunc(maps.Keys(open), func(a, b string) int { return len(a) - len(b) }) {
				t.Logf("%s: %s -> %s", m.Address, fd, open[fd])
			}
		}
	}
	code, out := c.run("stop", "--config", c.config)
	if code != 0 {
		t.Fatalf("stop: exit code %d\n%s", code, out)
	}
	if left, err := chaos.Processes(c.dir, c.config); err != nil || len(left) > 0 {
		t.Errorf("processes are left after the stop: %v, %v", left, err)
	}
	if left, _ := filepath.Glob(filepath.Join(c.dir, "run", "p", "*")); len(left) > 0 {
		t.Errorf("sockets are left after the stop: %v", left)
	}
}

func median(all []resources, of func(resources) int) int {
	var out []int
	for _, k := range all {
		out = append(out, of(k))
	}
	slices.Sort(out)
	return out[len(out)/2]
}
