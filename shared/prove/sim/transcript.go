package sim

import (
	"strings"

	"github.com/dynast-io/dynast/shared/rules/core"
)

// describe writes an event of a member and the resulting effects to the transcript.
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

// repeats reports whether the same text was one of the last two lines of this process. A process
// that waits for a lock tries it again and again.
func (p *process) repeats(text string) bool {
	if text == p.lastLines[0] || text == p.lastLines[1] {
		p.repeated++
		return true
	}
	if p.repeated > 0 {
		p.w.tell("%-11s continues like this: %d lines are left out", p, p.repeated)
	}
	p.lastLines[0], p.lastLines[1], p.repeated = p.lastLines[1], text, 0
	return false
}

// quiet reports whether an event is so frequent that it gets no line without an effect.
func quiet(ev core.Event) bool {
	switch ev.(type) {
	case core.Tick, core.Heard, core.Progress, core.SlotOwned:
		return true
	}
	return false
}
