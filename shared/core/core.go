package core

import (
	"fmt"
	"math"
	"time"

	"github.com/dynast-io/dynast/shared/entry"
	"github.com/dynast-io/dynast/shared/roster"
)

// Role is what a Core is doing.
type Role uint8

// The roles; see the package comment for how one leads to another.
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

// allowed holds the roles that each role can change into.
var allowed = map[Role][]Role{
	Following:  {Contending, Ended},
	Contending: {Following, Inheriting, Ended},
	Inheriting: {Leading, Ended},
	Leading:    {Ended},
}

// maxDeaths bounds the history of deaths.
const maxDeaths = 32

// Core is one member's rules and the state they need. See the package comment.
type Core struct {
	cfg Config
	now time.Duration // of the last step
	out []Effect

	role   Role
	self   roster.Member
	roster *roster.Roster // never nil; immutable once published
	deaths []Death

	// The own log: synced and committed never pass appended, and appended never
	// falls behind committed. hasCopy is false while the slot holds nothing usable.
	hasCopy   bool
	appended  entry.Position
	synced    uint64
	committed uint64
	syncing   bool // a Sync is out, its Synced not yet in

	// nextBeat is the next heartbeat by the time alone; answerAt is when a
	// follower answers its leader's.
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

// Roster returns the current roster. It is not changed afterwards.
func (c *Core) Roster() *roster.Roster { return c.roster }

// Deaths returns the last deaths, oldest first.
func (c *Core) Deaths() []Death { return c.deaths }

// Step takes one event at a time since an arbitrary start, which never goes
// back, and returns what is to be done. The slice is the caller's.
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
	case Heard, Deaf, LeaderStopped, Received, Installed, Dismissed, Introduced:
		c.stepFollower(ev)
	case LockTaken, LockHeld, Adopted, AdoptFailed, SuccessionWritten, SuccessionFailed:
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

// discountLateness advances the clock. A member is to be woken when it said, or
// once a heartbeat interval; where it was not, it was itself stopped or starved, and
// the time that it missed says nothing about others: it is added to when they were last heard.
func (c *Core) discountLateness(now time.Duration) {
	gap := now - c.now
	intime := c.now == 0 || gap <= 2*c.cfg.HeartbeatInterval || now <= c.Wake()+c.cfg.HeartbeatInterval
	c.now = now
	if intime {
		return
	}
	late := gap - c.cfg.HeartbeatInterval
	c.follow.heard += late
	c.follow.stoppedSince += late
	c.follow.booted += late
	c.takeover.stoppedSince += late
	if c.lead != nil {
		c.lead.discount(late)
	}
}

// deadlines does what the time alone demands.
func (c *Core) deadlines() {
	if c.role == Ended {
		return
	}
	if c.role == Following || c.role == Leading {
		if c.now >= c.nextBeat {
			// At its multiples other things are done as well, with the same wake.
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
		c.retrySuccession()
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
		if c.takeover.trying { // the answer is what matters
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

// onAppended: the own log grew.
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

// sync asks for one Sync at a time; what is appended meanwhile is covered by the next.
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

// recordDeath keeps the history bounded.
func (c *Core) recordDeath(d Death) {
	deaths := append(append([]Death{}, c.deaths...), d)
	if len(deaths) > maxDeaths {
		deaths = deaths[len(deaths)-maxDeaths:]
	}
	c.deaths = deaths
}
