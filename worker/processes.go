package worker

import (
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/worker/state"
)

// processes holds the processes whose death matters to this member. In a leader, it also holds
// the supervisor that controls them. Only the loop uses it.
type processes struct {
	*proc.Watches[roster.ID]
	supervisor    member.Supervisor // nil until this process leads
	newSupervisor func() (member.Supervisor, error)
	// programs are the user's. Other goroutines use it too.
	programs *programs
}

func newProcesses(sh *state.Shared, newSupervisor func() (member.Supervisor, error)) *processes {
	died := func(id roster.ID, d proc.Death) { sh.Post(core.Died{ID: id, Reason: d.Reason, At: d.At}) }
	return &processes{Watches: proc.NewWatches(sh.Ended(), died), newSupervisor: newSupervisor}
}

func (p *processes) watch(id roster.ID) error {
	return p.Watch(id, proc.Identity{PID: id.PID, StartTime: id.StartTime})
}

// makeSupervisor creates the supervisor. A leader calls it before the first effect that needs it.
func (p *processes) makeSupervisor() (err error) {
	p.supervisor, err = p.newSupervisor()
	return err
}
