package services

import (
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/cgroup"
	"github.com/dynast-io/dynast/shared/host/launch"
	rules "github.com/dynast-io/dynast/shared/rules/services"
)

// groups is the group in which this process may create control groups.
var groups = sync.OnceValues(cgroup.Find)

// makeCgroup creates the control group of a run of an instance and limits it. The path is empty if
// control groups are not possible here. The texts say which limits could not be applied, and why.
//
// Each run has its own group. Since Linux 6.14, a process that is cloned into a group whose
// cgroup.kill was used before is killed at once (seen with 6.18).
func (m *Manager) makeCgroup(id rules.ID, run uint64, l config.Limits) (path string, notApplied []string) {
	parent, err := groups()
	if err != nil {
		return "", without(l, err)
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(m.host.Dir.Path()))
	// Two clusters on one host have groups of the same services.
	g, err := parent.Create(fmt.Sprintf("dynast-%08x-%s.%d-%d", h.Sum32(), id.Service, id.N, run))
	if err != nil {
		return "", without(l, err)
	}
	if err := g.Limit(uint64(l.Memory), l.CPUMillis, l.Processes); err != nil {
		return g.Path(), without(l, err)
	}
	return g.Path(), nil
}

// without names the limits that need a control group.
func without(l config.Limits, why error) []string {
	var names []string
	for name, set := range map[string]bool{"memory": l.Memory > 0, "cpu": l.CPUMillis > 0, "processes": l.Processes > 0} {
		if set {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%s: %v", strings.Join(names, ", "), why)}
}

func rlimits(l config.Limits) []launch.Limit {
	if l.OpenFiles == 0 {
		return nil
	}
	return []launch.Limit{{Resource: unix.RLIMIT_NOFILE, Value: uint64(l.OpenFiles)}}
}

// capabilities returns the numbers of the capabilities that a service drops.
func capabilities(names []string) ([]int, error) {
	if slices.Contains(names, config.AllCapabilities) {
		names = config.Capabilities
	}
	var out []int
	for _, name := range names {
		n := slices.Index(config.Capabilities, name)
		if n < 0 {
			return nil, errors.New("there is no capability " + name + "; see capabilities(7)")
		}
		out = append(out, n)
	}
	return out, nil
}
