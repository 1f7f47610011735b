package services

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/dynast-io/dynast/shared/host/openfiles"
	"github.com/dynast-io/dynast/shared/prove/testkit"
)

// openDescriptors counts the descriptors of this process, and those of files below a directory.
func openDescriptors(t *testing.T, dir string) (all, below int) {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if path, err := os.Readlink("/proc/self/fd/" + name.Name()); err == nil && strings.HasPrefix(path, dir+"/") {
			below++
		}
	}
	return len(names), below
}

// The leader has no more descriptors open for running programs than the limit of open files is
// checked for.
func TestDescriptorsOfInstances(t *testing.T) {
	const few, many = 4, 24
	open := map[int]int{}
	for _, n := range []int{few, many} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			r := newRig(t, fmt.Sprintf("service \"p\" {\n command = [\"sleep\", \"600\"]\n instances = %d\n}", n))
			before, _ := openDescriptors(t, "")
			r.lead()
			for k := 1; k <= n; k++ {
				r.await(fmt.Sprint("p/", k), 0)
			}
			testkit.Eventually(t, "the output of all instances is looked after", func() bool {
				all, below := openDescriptors(t, r.host.Dir.Path())
				open[n] = all - before
				return below >= 3*n
			})
		})
	}
	needed := func(n int) int { return openfiles.Services{Instances: n}.Needed() }
	if open[many] > needed(many) {
		t.Errorf("%d descriptors for %d instances, of which the limit of open files knows %d", open[many], many, needed(many))
	}
	// A few descriptors of starts and of Go's runtime may come and go.
	if got, want := open[many]-open[few], needed(many)-needed(few); got > want+8 {
		t.Errorf("%d more instances have %d more descriptors, want %d", many-few, got, want)
	}
}
