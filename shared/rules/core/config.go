package core

import (
	"cmp"
	"math/rand/v2"
	"time"

	"github.com/dynast-io/dynast/shared/rules/keeper"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

// Config sets the parameters of a Core. Only Configured changes them later.
type Config struct {
	// Self is this member: its ID, slot, control socket and version.
	Self roster.Member
	// Client is the address for clients. The roster carries it to all members.
	Client string
	// Followers is how many followers the leader keeps running.
	Followers int
	// MinSync is how many followers must have a write in their logs before it is acknowledged.
	// If fewer followers are in sync, all of these must have it.
	MinSync int

	HeartbeatInterval time.Duration
	HeartbeatTimeout  time.Duration
	// TurnDelay is the delay between two neighbours in the line of succession: each tries to
	// take over this much later than the one before it.
	TurnDelay time.Duration
	// LockRetry is how long a member waits before it tries again to take a lock that is held
	// without a new leader being named. The lock outlives its owner while a child of the owner
	// is between fork and exec.
	LockRetry time.Duration
	// Settle is how long a new leader that has a living follower waits before it starts missing
	// followers. A start costs tens of milliseconds of processor time, just when clients and
	// followers reconnect.
	Settle time.Duration
	// StopTimeout is how long followers may take to leave before they are killed.
	StopTimeout time.Duration

	// InSyncWindow is how many entries a follower may be behind to become in sync.
	InSyncWindow uint64
	// LagLimit is how many entries a follower in sync may be behind. If it is further behind,
	// it is lagging and does not count for commits.
	LagLimit uint64

	Keeper keeper.Config
	// Rand is the source of the jitter.
	Rand *rand.Rand
}

// Defaults returns c with default values for the fields that are zero.
func (c Config) Defaults() Config {
	c.TurnDelay = cmp.Or(c.TurnDelay, 15*time.Millisecond)
	c.LockRetry = cmp.Or(c.LockRetry, 3*time.Millisecond)
	c.Settle = cmp.Or(c.Settle, 20*time.Millisecond)
	c.StopTimeout = cmp.Or(c.StopTimeout, 10*time.Second)
	c.InSyncWindow = cmp.Or(c.InSyncWindow, 4096)
	c.LagLimit = cmp.Or(c.LagLimit, 1<<16)
	k := &c.Keeper
	k.StartTimeout = cmp.Or(k.StartTimeout, 10*time.Second)
	k.Base = cmp.Or(k.Base, 50*time.Millisecond)
	k.Max = cmp.Or(k.Max, 15*time.Second)
	k.HalfLife = cmp.Or(k.HalfLife, 10*time.Second)
	k.Free = cmp.Or(k.Free, 3)
	return c
}
