package services

import "slices"

// State is the word that operators see for an instance.
type State string

// The states.
const (
	StateWaiting  State = "waiting"
	StateStarting State = "starting"
	StateRunning  State = "running"
	StateReady    State = "ready"
	StateBackoff  State = "backoff"
	StateStopping State = "stopping"
	StateStopped  State = "stopped"
	StateDone     State = "done"
	StateFailed   State = "failed"
)

// States are all states.
var States = []State{StateWaiting, StateStarting, StateRunning, StateReady, StateBackoff, StateStopping, StateStopped, StateDone, StateFailed}

// View describes an instance to operators.
type View struct {
	Record
	State State
	// Waits says for what an instance waits, or why it does not run.
	Waits string
}

// View returns all instances, sorted.
func (c *Core) View() []View {
	if c.order == nil {
		c.sort()
	}
	out := make([]View, 0, len(c.order))
	for _, i := range c.order {
		v := View{Record: i.Record}
		v.State, v.Waits = c.state(i)
		out = append(out, v)
	}
	return out
}

func (c *Core) state(i *instance) (State, string) {
	switch i.Phase {
	case Starting:
		return StateStarting, ""
	case Up:
		if i.isReady() {
			return StateReady, ""
		}
		return StateRunning, i.Reason
	case Ending, Clearing:
		if i.Phase == Ending && i.Why == Itself {
			return StateStopping, "the program said that it stops"
		}
		return StateStopping, ""
	}
	switch {
	case i.Outcome == Succeeded:
		return StateDone, ""
	case i.Outcome == Failed:
		return StateFailed, i.Reason
	case i.removed(), c.stopping, c.stopped(i):
		return StateStopped, ""
	case i.spec.Scheduled && !i.Armed:
		return StateWaiting, "waits for its schedule"
	case i.NotBefore > c.now:
		return StateBackoff, i.Reason
	default:
		return StateWaiting, c.blocked(i)
	}
}

func (c *Core) stopped(i *instance) bool {
	w := c.wishes[i.ID.Service]
	return w.Stopped || slices.Contains(w.StoppedInstances, i.ID.N)
}

// Stopped reports whether no process of any instance is left.
func (c *Core) Stopped() bool {
	for _, i := range c.instances {
		if i.Phase != Idle {
			return false
		}
	}
	return true
}

// Runs reports whether a service has a process, or one that is being started or ended.
func (c *Core) Runs(service string) bool {
	for _, i := range c.instances {
		if i.ID.Service == service && i.Phase != Idle {
			return true
		}
	}
	return false
}
