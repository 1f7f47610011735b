package keeper

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// Config sets the pace of restarts.
type Config struct {
	// StartTimeout is how long a started process may take until it is Up, counted
	// from the last sign that it works on that (see Toils).
	StartTimeout time.Duration
	// LongestStart is how long it may take in all; 0 is 60 times StartTimeout.
	LongestStart time.Duration
	// Base is the first delay; each further failure doubles it up to Max.
	Base, Max time.Duration
	// HalfLife is the time in which the memory of failures halves.
	HalfLife time.Duration
	// Free is the number of remembered failures that cost no delay.
	Free float64
}

// Keeper holds the seats. The zero value is not usable; see New.
type Keeper struct {
	cfg   Config
	rng   *rand.Rand
	seats map[int]*seat
}

type seatState uint8

const (
	empty     seatState = iota // nothing asked for
	scheduled                  // to be started at `at`
	starting                   // started, must be up by `at`
	up
)

type seat struct {
	state seatState
	at    time.Duration
	began time.Duration // of a start
	// score counts failures, halved every HalfLife since scored.
	score  float64
	scored time.Duration
}

// New returns a Keeper without seats; rng is the source of jitter.
func New(cfg Config, rng *rand.Rand) *Keeper {
	if cfg.LongestStart == 0 {
		cfg.LongestStart = 60 * cfg.StartTimeout
	}
	return &Keeper{cfg: cfg, rng: rng, seats: map[int]*seat{}}
}

// SetStartTimeout changes Config.StartTimeout for the starts to come.
func (k *Keeper) SetStartTimeout(d time.Duration) { k.cfg.StartTimeout = d }

func (k *Keeper) seat(n int) *seat {
	s := k.seats[n]
	if s == nil {
		s = &seat{}
		k.seats[n] = s
	}
	return s
}

// Fill schedules a start for an empty seat and returns how long it waits.
func (k *Keeper) Fill(now time.Duration, n int) time.Duration {
	s := k.seat(n)
	if s.state != empty {
		return 0
	}
	d := k.delay(s, now)
	s.state, s.at = scheduled, now+d
	return d
}

// Due returns the seats whose time to start has come, lowest first, and counts
// them as starting.
func (k *Keeper) Due(now time.Duration) []int {
	due := k.collect(now, scheduled)
	for _, n := range due {
		s := k.seats[n]
		s.state, s.at, s.began = starting, now+k.cfg.StartTimeout, now
	}
	return due
}

// Toils reports a sign that a seat's process works on its start: it gets
// StartTimeout from here on, but no more than LongestStart in all.
func (k *Keeper) Toils(now time.Duration, n int) {
	if s := k.seats[n]; s != nil && s.state == starting {
		s.at = max(s.at, min(now+k.cfg.StartTimeout, s.began+k.cfg.LongestStart))
	}
}

// Overdue returns the seats whose process did not come up in time. They stay
// starting, with the clock set anew, until the caller reports Down.
func (k *Keeper) Overdue(now time.Duration) []int {
	late := k.collect(now, starting)
	for _, n := range late {
		k.seats[n].at = now + k.cfg.StartTimeout
	}
	return late
}

func (k *Keeper) collect(now time.Duration, st seatState) []int {
	var found []int
	for n, s := range k.seats {
		if s.state == st && s.at <= now {
			found = append(found, n)
		}
	}
	slices.Sort(found)
	return found
}

// Up reports that the seat's process does its work.
func (k *Keeper) Up(n int) { k.seat(n).state = up }

// Down reports that the seat's process failed or died; the seat is empty.
func (k *Keeper) Down(now time.Duration, n int) {
	s := k.seat(n)
	s.score = k.score(s, now) + 1
	s.scored = now
	s.state = empty
}

// Cancel empties the seat without counting a failure.
func (k *Keeper) Cancel(n int) {
	if s := k.seats[n]; s != nil {
		s.state = empty
	}
}

// Pending returns the seats that are scheduled or starting, lowest first.
func (k *Keeper) Pending() []int {
	var found []int
	for n, s := range k.seats {
		if s.state == scheduled || s.state == starting {
			found = append(found, n)
		}
	}
	slices.Sort(found)
	return found
}

// IsPending reports whether a seat is scheduled or starting.
func (k *Keeper) IsPending(n int) bool {
	s := k.seats[n]
	return s != nil && (s.state == scheduled || s.state == starting)
}

// Busy reports whether a seat is scheduled, starting or up.
func (k *Keeper) Busy(n int) bool {
	s := k.seats[n]
	return s != nil && s.state != empty
}

// Wake returns the time of the next Due or Overdue, false when there is none.
func (k *Keeper) Wake() (time.Duration, bool) {
	wake, any := time.Duration(math.MaxInt64), false
	for _, s := range k.seats {
		if s.state == scheduled || s.state == starting {
			wake, any = min(wake, s.at), true
		}
	}
	return wake, any
}

// score is the number of failures remembered at a time.
func (k *Keeper) score(s *seat, now time.Duration) float64 {
	if s.score == 0 {
		return 0
	}
	return s.score * math.Exp2(-float64(now-s.scored)/float64(k.cfg.HalfLife))
}

// delay grows exponentially with the failures beyond the free ones and is
// spread by a quarter to both sides, so that seats which failed together do
// not start together.
func (k *Keeper) delay(s *seat, now time.Duration) time.Duration {
	over := k.score(s, now) - k.cfg.Free
	if over <= 0 {
		return 0
	}
	d := min(float64(k.cfg.Base)*math.Exp2(over), float64(k.cfg.Max))
	return time.Duration(d * (0.75 + k.rng.Float64()/2))
}

// Take counts an empty or scheduled seat as starting: somebody else started
// its process.
func (k *Keeper) Take(now time.Duration, n int) {
	s := k.seat(n)
	s.state, s.at, s.began = starting, now+k.cfg.StartTimeout, now
}
