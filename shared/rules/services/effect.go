package services

// Effect is something to do. The caller carries effects out in order.
type Effect interface{ effect() }

type (
	// Save keeps a record for later leaders. It does not have to survive a power loss, because no
	// process does.
	Save struct{ Record Record }
	// SaveWish keeps an operator's wish. A wish without content can be forgotten.
	SaveWish struct {
		Service string
		Wish    Wish
	}
	// Forget removes the record of an instance that no longer exists.
	Forget struct{ ID ID }

	// Start starts a process. The answer is Started or StartFailed.
	Start struct {
		ID  ID
		Run uint64
	}
	// Adopt watches a process that an earlier leader started. The answer is Exited when it dies.
	Adopt struct {
		ID      ID
		Run     uint64
		Process Process
	}
	// Signal sends the stop signal to the main process.
	Signal struct {
		ID  ID
		Run uint64
	}
	// Clear kills what is left of the process tree. The answer is Cleared.
	Clear struct {
		ID  ID
		Run uint64
	}
	// Check begins the ready check (Alive is false) or the alive check of a process. It ends with
	// EndChecks. A ready check ends at its first success. All checks begin anew when the
	// configuration changes.
	Check struct {
		ID    ID
		Run   uint64
		Alive bool
	}
	// EndChecks ends all checks of a process.
	EndChecks struct {
		ID  ID
		Run uint64
	}
	// Tell reports something to operators.
	Tell struct {
		ID     ID
		Kind   Kind
		Reason string
		Exit   Exit
	}
)

func (Save) effect()      {}
func (SaveWish) effect()  {}
func (Forget) effect()    {}
func (Start) effect()     {}
func (Adopt) effect()     {}
func (Signal) effect()    {}
func (Clear) effect()     {}
func (Check) effect()     {}
func (EndChecks) effect() {}
func (Tell) effect()      {}

// Kind is what a Tell reports.
type Kind string

// The kinds of reports.
const (
	ToldStarted   Kind = "started"
	ToldAdopted   Kind = "adopted"
	ToldReady     Kind = "ready"
	ToldExited    Kind = "exited"    // without being asked to
	ToldStopped   Kind = "stopped"   // as wanted
	ToldUnhealthy Kind = "unhealthy" // the alive check or the watchdog failed
	ToldNoStart   Kind = "not started"
	ToldDone      Kind = "done"
	ToldFailed    Kind = "failed" // given up
	ToldKilled    Kind = "killed" // the stop timeout passed
	ToldSkipped   Kind = "skipped"
	ToldAborted   Kind = "rolling restart aborted"
)
