package core

import (
	"math/rand/v2"
	"time"

	"github.com/dynast-io/dynast/shared/keeper"
	"github.com/dynast-io/dynast/shared/roster"
)

// Config is fixed for the life of a Core.
type Config struct {
	// Self is this member: its ID, slot, control socket and version.
	Self roster.Member
	// Client is the address for clients, told to everyone in the roster.
	Client string
	// Followers is how many followers the leader keeps alive.
	Followers int
	// MinSync is how many followers must have a write in their logs before it
	// is acknowledged, as far as that many are in sync.
	MinSync int

	HeartbeatInterval time.Duration
	HeartbeatTimeout  time.Duration
	// TurnDelay is how much later each next follower in line tries to inherit.
	TurnDelay time.Duration
	// LockRetry is how often one that found the lock taken, and nobody named who
	// took it, looks again: the lock outlives its owner for as long as a child of the
	// owner is between fork and exec.
	LockRetry time.Duration
	// Settle is how long a new leader with a living follower waits before it
	// starts the missing ones: a start costs tens of milliseconds of processor time, at the
	// moment in which clients and followers come back.
	Settle time.Duration
	// StopTimeout is how long a stop waits for followers before it kills them.
	StopTimeout time.Duration

	// InSyncWindow: a follower at most this many entries behind is in sync.
	InSyncWindow uint64
	// LagLimit: one that falls behind by more is lagging and counts no longer.
	LagLimit uint64

	Keeper keeper.Config
	// Rand is the source of jitter, and of epochs after a loss.
	Rand *rand.Rand
}

// Defaults fills what an operator does not set.
func (c Config) Defaults() Config {
	if c.TurnDelay == 0 {
		c.TurnDelay = 15 * time.Millisecond
	}
	if c.LockRetry == 0 {
		c.LockRetry = 3 * time.Millisecond
	}
	if c.Settle == 0 {
		c.Settle = 20 * time.Millisecond
	}
	if c.StopTimeout == 0 {
		c.StopTimeout = 10 * time.Second
	}
	if c.InSyncWindow == 0 {
		c.InSyncWindow = 4096
	}
	if c.LagLimit == 0 {
		c.LagLimit = 1 << 16
	}
	k := &c.Keeper
	if k.StartTimeout == 0 {
		k.StartTimeout = 10 * time.Second
	}
	if k.Base == 0 {
		k.Base = 50 * time.Millisecond
	}
	if k.Max == 0 {
		k.Max = 15 * time.Second
	}
	if k.HalfLife == 0 {
		k.HalfLife = 10 * time.Second
	}
	if k.Free == 0 {
		k.Free = 3
	}
	return c
}
