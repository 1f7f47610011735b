package placement

import "time"

// Limits are the times that depend on the settings of the host.
type Limits struct {
	// Grace is how long the renewals may fail until the program is stopped.
	Grace time.Duration
	// Reserve is the time in which a Kill is carried out, also if the leader hangs or dies meanwhile.
	Reserve time.Duration
}

// NewLimits returns the limits of a host on which a leader that hangs is replaced after a time. The rest
// of Grace is enough for a hanging process of the store to be replaced, or for an election.
func NewLimits(hang time.Duration) Limits {
	return Limits{Grace: hang + 4*time.Second, Reserve: hang + time.Second}
}

const (
	// Drift is by how much the rate of each clock may differ from the true one: 1/Drift.
	Drift = 100

	// renewEvery is the time between two renewals, and claimEvery the one between two claims. retry is
	// the pause after a request that failed.
	renewEvery = time.Second
	claimEvery = 500 * time.Millisecond
	retry      = 200 * time.Millisecond
	// killAgain is how often Kill is repeated.
	killAgain = 200 * time.Millisecond
)

// TTL returns the time to live of the lease of a service with a stop timeout. The store counts leases
// in seconds.
func (l Limits) TTL(stop time.Duration) time.Duration {
	d := l.Grace + stop + l.Reserve
	d += d * 2 / (Drift - 2)
	return (d + time.Second - 1).Truncate(time.Second)
}

// Phase is what a host has to do with a service.
type Phase string

// The phases.
const (
	Away      Phase = "away"      // another host runs it, or none
	Held      Phase = "held"      // this host may run it
	Leaving   Phase = "leaving"   // this host has the ownership, and its program has to end
	Releasing Phase = "releasing" // the program is gone, and the ownership is being given back
)

// State is what a later leader of the host needs to know.
type State struct {
	Phase Phase `json:"phase"`
	// Lease is the lease of the ownership, and Fence the create revision of its key.
	Lease int64 `json:"lease,omitempty"`
	Fence int64 `json:"fence,omitempty"`
	// Sent is when the last request was sent that the store has answered. TTL is the life of the lease
	// from then on, and Stop and Reserve are the stop timeout and the reserve that it covers.
	Sent    time.Duration `json:"sent,omitempty"`
	TTL     time.Duration `json:"ttl,omitempty"`
	Stop    time.Duration `json:"stop,omitempty"`
	Reserve time.Duration `json:"reserve,omitempty"`
}

// Deadline is when another host may run the service, by the clock of this host.
func (s State) Deadline() time.Duration { return s.Sent + s.TTL - s.TTL*2/Drift }

// Kill is when the program is killed that has not ended.
func (s State) Kill() time.Duration { return s.Deadline() - s.Reserve }

// Late is when the program is stopped because the lease was not renewed. A program must not be started
// after it.
func (s State) Late() time.Duration { return s.Kill() - s.Stop }

// Event is something that happened. See Core.Step.
type Event interface{ event() }

type (
	// Tick tells the time. It is due at Wake.
	Tick struct{}
	// Look tells what the caller sees. It is the first event, and it is due when one of these changes.
	Look struct {
		// Wanted means that this host would run the service if it may.
		Wanted bool
		// Gone means that no process of the service is left, and none is being started.
		Gone bool
		// Stop is the stop timeout, for the next claim.
		Stop time.Duration
	}
	// Claimed answers a Claim: this host has the ownership. Sent is when the request was sent.
	Claimed struct {
		Sent  time.Duration
		TTL   time.Duration
		Lease int64
		Fence int64
	}
	// Taken answers a Claim: somebody has the ownership. Mine is the lease of an ownership of this host
	// that it does not know, because an answer was lost, or 0.
	Taken struct{ Mine int64 }
	// Renewed answers a Renew.
	Renewed struct {
		Sent  time.Duration
		Lease int64
	}
	// Lost answers a Renew: the lease or the key is gone.
	Lost struct{ Lease int64 }
	// Released answers a Release: the ownership is not with this host any more.
	Released struct{ Lease int64 }
	// Failed answers any request that has no other answer. It may have been carried out.
	Failed struct{}
	// Unsaved says that the Save before an Allow failed.
	Unsaved struct{}
)

func (Tick) event()     {}
func (Look) event()     {}
func (Claimed) event()  {}
func (Taken) event()    {}
func (Renewed) event()  {}
func (Lost) event()     {}
func (Released) event() {}
func (Failed) event()   {}
func (Unsaved) event()  {}

// Effect is something to do. The caller carries effects out in order.
type Effect interface{ effect() }

type (
	// Save keeps the state for later leaders of this boot. It comes before Allow, and the caller does not
	// carry out a Release before the state is saved.
	Save struct{ State State }
	// Claim asks for the ownership. Renew, Release and Claim are requests: there is one at a time, and
	// the caller gives exactly one answer.
	Claim struct{ TTL time.Duration }
	// Renew renews the lease.
	Renew struct{ Lease, Fence int64 }
	// Release gives the ownership back.
	Release struct{ Lease int64 }
	// Allow lets the program run. It gets the fence. A program that an earlier leader was allowed to run
	// needs no other Allow.
	Allow struct{ Fence int64 }
	// Stop stops the program in an orderly way, and starts it no more.
	Stop struct{ Why string }
	// Kill kills all processes of the service at once.
	Kill struct{}
)

func (Save) effect()    {}
func (Claim) effect()   {}
func (Renew) effect()   {}
func (Release) effect() {}
func (Allow) effect()   {}
func (Stop) effect()    {}
func (Kill) effect()    {}

// Core is the state of one service. See New.
type Core struct {
	State
	limits  Limits
	now     time.Duration
	look    Look
	asking  bool          // a request has no answer yet
	askAt   time.Duration // when the next request is due
	killAt  time.Duration // when the next Kill is due
	release int64         // a lease of this host that has to be released before the next claim
	out     []Effect
}

// New returns a Core that continues with the state that an earlier leader has saved. sameBoot is false if
// the host has booted since: then no program is left. The caller must carry out the effects.
func New(limits Limits, now time.Duration, saved State, sameBoot bool) (*Core, []Effect) {
	c := &Core{State: saved, limits: limits, now: now, look: Look{Wanted: true}}
	if c.Phase == "" {
		c.Phase = Away
	}
	if c.Phase != Away && !sameBoot {
		c.release, c.State = c.Lease, State{Phase: Away}
		c.save()
	}
	if c.Phase != Away && c.Sent > now {
		c.Sent, c.TTL = 0, 0 // it comes from another clock, so the deadline is unknown
	}
	return c, c.out
}

// Allowed reports whether the program may run.
func (c *Core) Allowed() bool { return c.Phase == Held }

// Step takes an event and returns what to do about it.
func (c *Core) Step(now time.Duration, ev Event) []Effect {
	c.now, c.out = max(c.now, now), nil
	c.handle(ev)
	c.decide()
	return c.out
}

func (c *Core) do(e Effect) { c.out = append(c.out, e) }
func (c *Core) save()       { c.do(Save{State: c.State}) }

func (c *Core) enter(p Phase) {
	c.Phase, c.askAt = p, c.now
	if p == Away {
		c.State = State{Phase: Away}
	}
	c.save()
}

func (c *Core) handle(ev Event) {
	switch e := ev.(type) {
	case Look:
		c.look = e
	case Claimed:
		c.answered(renewEvery)
		c.claimed(e)
	case Taken:
		c.answered(claimEvery)
		if c.Phase == Away {
			c.release = e.Mine
		}
	case Renewed:
		c.answered(renewEvery)
		if e.Lease == c.Lease && c.renews() {
			c.Sent = max(c.Sent, e.Sent)
			c.save()
		}
	case Lost:
		c.answered(retry)
		if e.Lease == c.Lease && (c.Phase == Held || c.Phase == Leaving) {
			// Another host may run the service already.
			c.leave("the store says that this host does not own it any more")
			c.TTL = 0
			c.save()
		}
	case Released:
		c.answered(0)
		if c.release == e.Lease {
			c.release = 0
		}
		if c.Phase == Releasing && e.Lease == c.Lease {
			c.enter(Away)
			c.askAt = c.now + claimEvery // others first
		}
	case Failed:
		c.answered(retry)
	case Unsaved:
		// A later leader would not know of the ownership.
		if c.Phase == Held {
			c.leave("its state cannot be saved")
		}
	}
}

func (c *Core) answered(pause time.Duration) {
	c.asking, c.askAt = false, c.now+pause
}

// claimed uses a new ownership, or gives it back if it comes too late.
func (c *Core) claimed(e Claimed) {
	s := State{Phase: Held, Lease: e.Lease, Fence: e.Fence, Sent: e.Sent, TTL: e.TTL, Stop: c.look.Stop, Reserve: c.limits.Reserve}
	// The stop timeout may have been shorter when the request was sent.
	s.Stop = max(min(s.Stop, s.Kill()-s.Sent-c.limits.Grace), 0)
	if c.Phase != Away || !c.look.Wanted || !c.look.Gone || c.now >= s.Late() {
		c.release, c.askAt = e.Lease, c.now
		return
	}
	c.State = s
	c.askAt = e.Sent + renewEvery
	c.save()
	c.do(Allow{Fence: s.Fence})
}

// renews reports whether renewals still count.
func (c *Core) renews() bool {
	return (c.Phase == Held || c.Phase == Leaving) && c.now < c.Late()
}

func (c *Core) leave(why string) {
	if c.Phase == Held {
		c.enter(Leaving)
		c.do(Stop{Why: why})
	}
}

func (c *Core) decide() {
	if c.Phase == Held && !c.look.Wanted {
		c.leave("this host shall not run it")
	}
	if c.Phase == Held && c.now >= c.Late() {
		c.leave("the store did not confirm in time that this host may run it")
	}
	if c.Phase == Leaving && c.look.Gone {
		c.enter(Releasing)
	}
	if c.Phase == Leaving && c.now >= c.Kill() && c.now >= c.killAt {
		c.killAt = c.now + killAgain
		c.do(Kill{})
	}
	if c.Phase == Releasing && c.now >= c.Deadline() {
		c.enter(Away) // the lease ends by itself
	}
	if !c.asking && c.now >= c.askAt {
		c.ask()
	}
}

// ask sends the request that is due.
func (c *Core) ask() {
	var request Effect
	switch {
	case c.Phase == Releasing:
		request = Release{Lease: c.Lease}
	case c.renews():
		request = Renew{Lease: c.Lease, Fence: c.Fence}
	case c.Phase == Away && c.release != 0:
		request = Release{Lease: c.release}
	case c.Phase == Away && c.look.Wanted && c.look.Gone:
		request = Claim{TTL: c.limits.TTL(c.look.Stop)}
	default:
		return
	}
	c.asking = true
	c.do(request)
}

// Wake returns when Tick is due, or false if nothing depends on the time.
func (c *Core) Wake() (at time.Duration, ok bool) {
	due := func(t time.Duration) {
		if !ok || t < at {
			at, ok = t, true
		}
	}
	switch c.Phase {
	case Held:
		due(c.Late())
	case Leaving:
		due(max(c.Kill(), c.killAt))
	case Releasing:
		due(c.Deadline())
	}
	asks := c.Phase == Releasing || c.renews() || c.Phase == Away && (c.release != 0 || c.look.Wanted && c.look.Gone)
	if asks && !c.asking {
		due(c.askAt)
	}
	return at, ok
}
