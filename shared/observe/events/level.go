package events

import (
	"strings"

	"github.com/hashicorp/go-hclog"

	"github.com/dynast-io/dynast/shared/rules/core"
)

// Level says what an operator has to do about an event.
type Level string

// The levels.
const (
	Info    Level = "info"    // nothing
	Warning Level = "warning" // look soon: dynast repairs it itself, but it should not happen often
	Error   Level = "error"   // act now: clients, a program or data are affected until somebody does
)

// Hclog returns the level of the log line about such an event.
func (l Level) Hclog() hclog.Level {
	switch l {
	case Error:
		return hclog.Error
	case Warning:
		return hclog.Warn
	}
	return hclog.Info
}

// levels has the kinds that need an operator. All others are Info.
var levels = map[string]Level{
	core.LossPossible.String(): Error, core.Differs.String(): Error, core.SuccessionBlocked.String(): Error,
	Ended: Error, DiskFull: Error, MemoryTight: Error, ClientsWait: Error, ServiceFailed: Error, ServiceNotStarted: Error,

	core.LeaderLost.String(): Warning, core.LeaderSilent.String(): Warning, core.MemberDied.String(): Warning,
	core.MemberSilent.String(): Warning, core.MemberLagging.String(): Warning, core.SpawnError.String(): Warning,
	core.SpawnDelayed.String(): Warning, core.Degraded.String(): Warning, Lost: Warning,
	ServiceExited: Warning, ServiceUnhealthy: Warning, ServiceKilled: Warning, ServiceSkipped: Warning,
	ServiceAborted: Warning, ServiceGivenUp: Warning,
}

// LevelOf returns the level of a kind of event.
func LevelOf(kind string) Level {
	if l, ok := levels[kind]; ok {
		return l
	}
	return Info
}

// ServiceKind returns the kind of an event about a service from the words of its log line, like
// "not started".
func ServiceKind(words string) string {
	return ServicePrefix + strings.ReplaceAll(words, " ", "_")
}

var recoveries = map[string]bool{
	core.TookOver.String(): true, core.MemberInSync.String(): true, core.Restored.String(): true,
	Serving: true, Started: true, DiskFreed: true, MemoryEased: true, ClientsAccepted: true, ServiceReady: true,
}

// Recovery reports whether a kind of event says that something works, or works again.
func Recovery(kind string) bool { return recoveries[kind] }
