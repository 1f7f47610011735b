package sim

import (
	"strings"

	"github.com/dynast-io/dynast/shared/core"
)

// describe writes what a member heard and what it does about it.
func (p *process) describe(ev core.Event, effects []core.Effect) {
	if p.w.cfg.Trace == nil {
		return
	}
	if quiet(ev) && len(effects) == 0 {
		return
	}
	parts := make([]string, len(effects))
	for i, e := range effects {
		parts[i] = core.Describe(e)
	}
	p.w.tell("%-11s %-10s %s => %s", p, p.core.Role(), core.Describe(ev), strings.Join(parts, "; "))
}

// quiet events happen all the time; alone they are not worth a line.
func quiet(ev core.Event) bool {
	switch ev.(type) {
	case core.Tick, core.Heard, core.Progress:
		return true
	}
	return false
}
