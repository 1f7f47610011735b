package worker

import (
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/dynast-io/dynast/shared/rules/core"
)

// handleSignals handles the signals of this process. SIGTERM and SIGINT stop the cluster in
// order, and a second one ends the process at once. SIGHUP reloads the configuration, so a
// closed terminal ends nothing. SIGPIPE is ignored: writing to a closed pipe returns an error.
func (m *Member) handleSignals() {
	ignored := make(chan os.Signal, 1)
	signal.Notify(ignored, syscall.SIGPIPE)
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	signal.Ignore(syscall.SIGTTOU)
	ends := make(chan os.Signal, 4)
	signal.Notify(ends, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		for {
			select {
			case <-ignored:
			case <-hangups:
				if m.Leading.Load() {
					go m.Guarded(m.reloader.reloadForSignal)
				}
			case s := <-ends:
				m.Log.Info("received a signal", "signal", s.String())
				m.endIfOpening("signal: " + s.String())
				m.stop("signal: " + s.String())
			case <-m.Ended():
				return
			}
		}
	}()
}

// stop stops the cluster if this member leads, and otherwise this member.
func (m *Member) stop(reason string) {
	if m.Leading.Load() {
		m.processes.programs.stop(reason, false)
		return
	}
	m.Post(core.StopRequested{Reason: reason})
}

// endIfOpening ends a follower that is still opening its copy. It has no loop yet that could
// end it in order. Nothing is lost: the copy is complete at any moment, or is fetched again.
func (m *Member) endIfOpening(reason string) {
	if !m.identity.opening.Load() {
		return
	}
	m.Log.Info("exiting", "reason", reason+", while the copy was being opened")
	m.Logs.Flush(time.Second)
	os.Exit(int(core.ExitDone))
}
