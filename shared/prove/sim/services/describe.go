package services

import (
	"fmt"
	"strings"

	rules "github.com/dynast-io/dynast/shared/rules/services"
)

// describe writes an event and the effects to the transcript.
func (l *leader) describe(ev rules.Event, effects []rules.Effect) {
	if l.w.cfg.Trace == nil {
		return
	}
	if c, ok := ev.(rules.Checked); ok && c.OK && len(effects) == 0 {
		return
	}
	var parts []string
	for _, e := range effects {
		parts = append(parts, effectText(e))
	}
	l.w.tell("%s => %s", eventText(ev), strings.Join(parts, "; "))
}

func eventText(ev rules.Event) string {
	switch e := ev.(type) {
	case rules.Lead:
		var b strings.Builder
		fmt.Fprintf(&b, "Lead fresh %t %s wishes %+v", e.Fresh, specsText(e.Specs), e.Wishes)
		for _, f := range e.Found {
			fmt.Fprintf(&b, " [%s main %d others %t exit %s]", recordText(f.Record), f.Main.PID, f.Others, f.Exit)
		}
		return b.String()
	case rules.Configured:
		return "Configured " + specsText(e.Specs)
	}
	return strings.ReplaceAll(fmt.Sprintf("%T%+v", ev, ev), "services.", "")
}

func effectText(e rules.Effect) string {
	if s, ok := e.(rules.Save); ok {
		return "Save " + recordText(s.Record)
	}
	return strings.ReplaceAll(fmt.Sprintf("%T%+v", e, e), "services.", "")
}

func specsText(specs []rules.Spec) string {
	var parts []string
	for _, s := range specs {
		parts = append(parts, fmt.Sprintf("%s x%d restart=%d needs=%v after=%v ready=%t alive=%d watchdog=%s stop=%s limit=%d scheduled=%t print=%d",
			s.Name, s.Instances, s.Restart, s.Needs, s.After, s.ReadyCheck, s.AliveFailures, s.Watchdog, s.StopTimeout, s.Limit, s.Scheduled, s.Fingerprint))
	}
	return "(" + strings.Join(parts, "; ") + ")"
}

func recordText(r rules.Record) string {
	return fmt.Sprintf("%s phase=%d run=%d pid=%d gen=%d print=%d ready=%t why=%d failures=%.2f outcome=%d armed=%t",
		r.ID, r.Phase, r.Run, r.Process.PID, r.Generation, r.Fingerprint, r.Ready, r.Why, r.Failures, r.Outcome, r.Armed)
}
