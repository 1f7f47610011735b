package core

import (
	"fmt"
	"strings"

	"github.com/dynast-io/dynast/shared/rules/roster"
)

// Describe describes an Event or an Effect in a few words, for transcripts and logs. The same
// value always gives the same text.
func Describe(v any) string {
	name := strings.TrimPrefix(fmt.Sprintf("%T", v), "core.")
	if d := details(v); d != "" {
		return name + " " + d
	}
	return name
}

// details leaves out fields that only the caller needs.
func details(v any) string {
	switch v := v.(type) {
	case LeaderStopped:
		return fmt.Sprintf("%s %t", v.ID, v.Stopped)
	case Boot:
		if v.Lead {
			return "to lead"
		}
		return fmt.Sprintf("to follow %s, log at %s", v.Roster.Leader, v.Last)
	case Heard:
		return fmt.Sprintf("[%s] commit %d", v.Roster, v.Commit)
	case Introduced:
		return fmt.Sprintf("[%s]", v.Roster)
	case Publish:
		return fmt.Sprintf("[%s]", v.Roster)
	case Received:
		return fmt.Sprintf("epoch %d, %s to %s, commit %d", v.Epoch, v.Prev, v.Last, v.Commit)
	case Appended:
		return v.Last.String()
	case Synced:
		return v.Last.String()
	case ServingStopped:
		return v.Last.String()
	case Installed:
		return v.Last.String()
	case Ack:
		return v.Last.String()
	case Died:
		return v.ID.String() + ": " + v.Reason
	case Append, Tick, Beat, Sync, Unfollow, TryLock, Replicate, StopServing, SuccessionWritten, Claimed:
		return ""
	case PublishDeaths:
		return fmt.Sprint(len(v.Deaths))
	}
	return strings.Join(append(takeoverDetails(v), memberDetails(v)...), " ")
}

func takeoverDetails(v any) []string {
	named := func(s *Succession) []string {
		if s == nil {
			return []string{"no succession.json"}
		}
		return []string{fmt.Sprintf("named: epoch %d slot %d %s", s.Epoch, s.Slot, s.Leader)}
	}
	switch v := v.(type) {
	case Claim:
		return []string{fmt.Sprintf("%d", v.Claims.Epoch)}
	case LockTaken:
		d := named(v.Succession)
		if v.Succession == nil {
			d = append(d, fmt.Sprintf("unreadable=%t data=%t", v.Unreadable, v.AnyData))
		}
		return d
	case LockHeld:
		return named(v.Succession)
	case Adopted:
		return []string{fmt.Sprintf("%s in slot %d", v.Last, v.Slot), v.Lost}
	case AdoptFailed:
		return []string{fmt.Sprintf("%s diverged=%t fatal=%t", v.Reason, v.Diverged, v.Fatal)}
	}
	return nil
}

func memberDetails(v any) []string {
	switch v := v.(type) {
	case Spawned:
		return []string{fmt.Sprintf("%s slot %d", v.Member.ID, v.Member.Slot)}
	case SpawnFailed:
		return []string{fmt.Sprintf("slot %d: %s", v.Slot, v.Reason)}
	case JoinRequested:
		return []string{v.Member.ID.String()}
	case Joined:
		return []string{fmt.Sprintf("%s slot %d at %s resume=%t", v.Member.ID, v.Member.Slot, v.Last, v.CanResume)}
	case Follow:
		return []string{v.Leader.ID.String()}
	case Expect:
		return []string{v.Leader.ID.String()}
	case Reattach:
		return []string{v.Member.ID.String()}
	case Admit:
		return []string{fmt.Sprintf("slot %d %s", v.Slot, v.Reason)}
	case Report:
		who := ""
		if v.Member != (roster.ID{}) {
			who = v.Member.String() + " "
		}
		return []string{fmt.Sprintf("%s: %s%s", v.Kind, who, v.Detail)}
	case Exit:
		return []string{fmt.Sprintf("%d: %s", v.Code, v.Reason)}
	case Progress:
		return []string{fmt.Sprintf("%s %d", v.ID, v.Index)}
	case Working:
		return []string{v.ID.String()}
	case SlotOwned:
		return []string{v.ID.String()}
	case Kill:
		return []string{v.ID.String() + ": " + v.Reason}
	}
	if takeoverDetails(v) != nil {
		return nil
	}
	if d, ok := operatorDetails(v); ok {
		return []string{d}
	}
	return []string{strings.Trim(fmt.Sprintf("%v", v), "{}")}
}

// operatorDetails describes the requests of operators, without their Ref.
func operatorDetails(v any) (string, bool) {
	switch v := v.(type) {
	case HandoverRequested:
		if !v.To.IsValid() {
			return "to the heir", true
		}
		return "to " + v.To.String(), true
	case ScaleRequested:
		if v.Relative {
			return fmt.Sprintf("%+d", v.Followers), true
		}
		return fmt.Sprint(v.Followers), true
	case RemoveRequested:
		return v.Address.String(), true
	case UpgradeRequested:
		return "to " + v.Build, true
	case Spawn:
		return strings.TrimSpace(fmt.Sprint(v.Slot, " ", v.Build)), true
	case DefragmentRequested, OweDefrag:
		return "", true
	case Answer:
		if v.Refused != "" {
			return "refused: " + v.Refused, true
		}
		return "done", true
	}
	return "", false
}
