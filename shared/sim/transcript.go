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
	var parts []string
	for _, e := range effects {
		if _, beat := e.(core.Beat); !beat {
			parts = append(parts, core.Describe(e))
		}
	}
	if len(parts) == 0 && quiet(ev) {
		return
	}
	if p.w.terse && p.repeats(core.Describe(ev)+strings.Join(parts, "")) {
		return
	}
	if !p.w.terse {
		p.w.tell("%-11s %-10s %s => %s", p, p.core.Role(), core.Describe(ev), strings.Join(parts, "; "))
		return
	}
	p.w.tell("%-11s %-10s %s", p, p.core.Role(), core.Describe(ev))
	for _, part := range parts {
		p.w.cfg.Trace(strings.Repeat(" ", 38) + part)
	}
}

// repeats reports whether the same was told of this process just before, or one
// line before that: who waits for a lock tries it again and again.
func (p *process) repeats(text string) bool {
	if text == p.told[0] || text == p.told[1] {
		p.untold++
		return true
	}
	if p.untold > 0 {
		p.w.tell("%-11s goes on like this: %d lines are left out", p, p.untold)
	}
	p.told[0], p.told[1], p.untold = p.told[1], text, 0
	return false
}

// quiet events happen all the time; alone they are not worth a line.
func quiet(ev core.Event) bool {
	switch ev.(type) {
	case core.Tick, core.Heard, core.Progress:
		return true
	}
	return false
}
