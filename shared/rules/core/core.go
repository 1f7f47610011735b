package core

import (
	"fmt"
	"math"
	"time"

	"github.com/dynast-io/dynast/shared/rules/entry"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

// Role is the part that a Core plays at the moment.
type Role uint8

// The roles. The package comment shows the changes between them.
const (
	Following Role = iota
	Contending
	Inheriting
	Leading
	Ended
)

func (r Role) String() string {
	return [...]string{"following", "contending", "inheriting", "leading", "ended"}[r]
}

// allowed lists the roles that each role can change to.
var allowed = map[Role][]Role{
	Following:  {Contending, Ended},
	Contending: {Following, Inheriting, Ended},
	Inheriting: {Leading, Ended},
	Leading:    {Ended},
}

// maxDeaths bounds the history of deaths.
const maxDeaths = 32

// Core holds the rules of one member and the state that they need. See the package comment.
type Core struct {
	cfg Config
	now time.Duration // the time of the last step
	out []Effect

	role   Role
	self   roster.Member
	roster *roster.Roster // never nil; not changed after it was published
	deaths []Death

	// The own log: synced and committed are never greater than appended. hasCopy is false while
	// the slot holds no usable replica.
	hasCopy   bool
	appended  entry.Position
	synced    uint64
	committed uint64
	syncing   bool // a Sync was emitted, and its Synced has not come yet

	// nextBeat is when the next timed heartbeat is due. answerAt is the earliest time at which
	// a follower answers a heartbeat of its leader.
	nextBeat, answerAt time.Duration

	follow   followState
	takeover takeoverState
	lead     *leadState // non-nil exactly while role is Leading
}

// New returns a Core that waits for Boot.
func New(cfg Config) *Core {
	cfg = cfg.Defaults()
	return &Core{cfg: cfg, self: cfg.Self, roster: &roster.Roster{}}
}

// Role returns the current role.
func (c *Core) Role() Role { return c.role }

// Roster returns the current roster, which is not changed afterwards.
func (c *Core) Roster() *roster.Roster { return c.roster }

// Deaths returns the last deaths, oldest first.
func (c *Core) Deaths() []Death { return c.deaths }

// Step takes one event and returns the effects that the caller must carry out. now is the time
// since an arbitrary start; it must never go back. The returned slice belongs to the caller.
func (c *Core) Step(now time.Duration, ev Event) []Effect {
	c.out = nil
	if c.role == Ended {
		return nil
	}
	c.discountLateness(now)
	c.dispatch(ev)
	c.deadlines()
	out := c.out
	c.out = nil
	return out
}

func (c *Core) dispatch(ev Event) {
	switch ev := ev.(type) {
	case Boot:
		c.boot(ev)
	case Tick:
	case Died:
		c.died(ev)
	case Appended:
		c.onAppended(ev)
	case Synced:
		c.onSynced(ev)
	case Configured:
		c.configured(ev)
	case StopRequested:
		c.stopRequested(ev)
	case Heard, SilenceExcused, LeaderStopped, Received, Installed, Dismissed, Introduced:
		c.stepFollower(ev)
	case LockTaken, LockHeld, Adopted, AdoptFailed, Claimed, ClaimFailed, SuccessionWritten, SuccessionFailed:
		c.stepTakeover(ev)
	default:
		c.stepLeader(ev)
	}
}

func (c *Core) emit(e ...Effect) { c.out = append(c.out, e...) }

func (c *Core) report(k Kind, id roster.ID, format string, args ...any) {
	c.emit(Report{Kind: k, Member: id, Detail: fmt.Sprintf(format, args...)})
}

// become is the only place where the role changes.
func (c *Core) become(r Role) {
	for _, to := range allowed[c.role] {
		if to == r {
			c.role = r
			return
		}
	}
	panic(fmt.Sprintf("core: role %s cannot become %s", c.role, r))
}

func (c *Core) exit(code ExitCode, format string, args ...any) {
	c.become(Ended)
	c.emit(Exit{Code: code, Reason: fmt.Sprintf(format, args...)})
}

// discountLateness advances the clock. A member must be woken at the time that Wake returned,
// and at least once per heartbeat interval. If it was not, this member itself was stopped or
// got no processor. The time that it missed then says nothing about other processes. It is
// added to the times at which they were last heard.
func (c *Core) discountLateness(now time.Duration) {
	gap := now - c.now
	intime := c.now == 0 || gap <= 2*c.cfg.HeartbeatInterval || now <= c.Wake()+c.cfg.HeartbeatInterval
	c.now = now
	if intime {
		return
	}
	late := gap - c.cfg.HeartbeatInterval
	c.follow.lastHeard += late
	c.follow.stoppedSince += late
	c.follow.booted += late
	c.takeover.stoppedSince += late
	if c.lead != nil {
		c.lead.discount(late)
	}
}

// deadlines does what is due at this time, whatever the event was.
func (c *Core) deadlines() {
	if c.role == Ended {
		return
	}
	if c.role == Following || c.role == Leading {
		if c.now >= c.nextBeat {
			// Other work is also done at multiples of the interval, in the same wake-up.
			c.nextBeat = c.now - c.now%c.cfg.HeartbeatInterval + c.cfg.HeartbeatInterval
			c.emit(Beat{})
		}
	}
	switch c.role {
	case Following:
		c.judgeLeader()
	case Contending:
		c.contend()
	case Inheriting:
		c.retryWrite()
	case Leading:
		c.superviseFollowers()
	}
}

// Wake returns when the next Tick is due.
func (c *Core) Wake() time.Duration {
	wake := time.Duration(math.MaxInt64)
	switch c.role {
	case Following:
		wake = min(c.nextBeat, c.silenceDeadline())
	case Contending:
		wake = c.takeover.tryAt
		if c.takeover.trying { // wait for the answer
			wake = c.now + c.cfg.HeartbeatInterval
		}
	case Inheriting:
		if c.takeover.writeAt > 0 {
			wake = c.takeover.writeAt
		} else {
			wake = c.now + c.cfg.HeartbeatInterval
		}
	case Leading:
		wake = min(c.nextBeat, c.lead.wake(c))
	}
	return wake
}

// onAppended handles the growth of the own log.
func (c *Core) onAppended(ev Appended) {
	if !c.appended.Less(ev.Last) && c.role != Inheriting {
		return
	}
	c.appended = ev.Last
	switch c.role {
	case Following, Contending:
		c.hasCopy = true
		c.emit(Ack(ev))
		c.advanceCommit()
	case Inheriting:
		c.epochAppended(ev)
	case Leading:
		c.emit(Replicate{})
		c.sync()
	}
}

// sync asks for one Sync at a time. The next Sync covers what is appended meanwhile.
func (c *Core) sync() {
	if !c.syncing && c.synced < c.appended.Index {
		c.syncing = true
		c.emit(Sync{})
	}
}

func (c *Core) onSynced(ev Synced) {
	c.syncing = false
	c.synced = max(c.synced, ev.Last.Index)
	switch c.role {
	case Inheriting:
		c.epochSynced()
	case Leading:
		c.sync()
		c.commit()
		c.handoverStep()
	}
}

// recordDeath adds a death to the history, which is bounded.
func (c *Core) recordDeath(d Death) {
	deaths := append(append([]Death{}, c.deaths...), d)
	if len(deaths) > maxDeaths {
		deaths = deaths[len(deaths)-maxDeaths:]
	}
	c.deaths = deaths
}
