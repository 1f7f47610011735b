package keeper

import (
	"math"
	"math/rand/v2"
	"time"
)

// Config sets how fast processes are started again.
type Config struct {
	// StartTimeout is how long a started process may take until it is Up. The time counts from
	// the last sign that the process works on its start (see Working).
	StartTimeout time.Duration
	// LongestStart is how long a start may take in total. 0 means 60 times StartTimeout.
	LongestStart time.Duration
	// Base is the first delay. Each further failure doubles it, up to Max.
	Base, Max time.Duration
	// HalfLife is the time in which the count of failures halves.
	HalfLife time.Duration
	// Free is the count of failures up to which a start is not delayed.
	Free float64
	// AtOnce is how many processes may be starting at the same time. 0 means no limit.
	AtOnce int
}

// Keeper holds the seats. The zero value is not usable; see New.
type Keeper struct {
	cfg   Config
	rng   *rand.Rand
	seats []seat // by number; most are empty
}

type seatState uint8

const (
	empty     seatState = iota // no process is wanted
	scheduled                  // the start is due at `at`
	starting                   // started; must be up by `at`
	up
)

type seat struct {
	state seatState
	at    time.Duration
	began time.Duration // when the start began
	// score counts failures. It halves every HalfLife, counted from scored.
	score  float64
	scored time.Duration
}

// New returns a Keeper without seats. rng is the source of the jitter.
func New(cfg Config, rng *rand.Rand) *Keeper {
	if cfg.LongestStart == 0 {
		cfg.LongestStart = 60 * cfg.StartTimeout
	}
	return &Keeper{cfg: cfg, rng: rng}
}

// SetStartTimeout changes Config.StartTimeout for later starts.
func (k *Keeper) SetStartTimeout(d time.Duration) { k.cfg.StartTimeout = d }

// seat returns a seat, and creates it if needed. The pointer is valid until the next call.
func (k *Keeper) seat(n int) *seat {
	for n >= len(k.seats) {
		k.seats = append(k.seats, seat{})
	}
	return &k.seats[n]
}

// state returns the state of a seat. It does not create the seat.
func (k *Keeper) state(n int) seatState {
	if n < 0 || n >= len(k.seats) {
		return empty
	}
	return k.seats[n].state
}

// Fill schedules a start for an empty seat and returns the delay until the start.
func (k *Keeper) Fill(now time.Duration, n int) time.Duration {
	s := k.seat(n)
	if s.state != empty {
		return 0
	}
	d := k.delay(s, now)
	s.state, s.at = scheduled, now+d
	return d
}

// Due returns the seats whose start is due, lowest first, and marks them as starting. If that
// would exceed Config.AtOnce, the other seats wait until a start ends.
func (k *Keeper) Due(now time.Duration) []int {
	due := k.collect(now, scheduled)
	due = due[:min(len(due), k.room())]
	for _, n := range due {
		s := &k.seats[n]
		s.state, s.at, s.began = starting, now+k.cfg.StartTimeout, now
	}
	return due
}

// room returns how many more starts may begin.
func (k *Keeper) room() int {
	if k.cfg.AtOnce == 0 {
		return len(k.seats)
	}
	room := k.cfg.AtOnce
	for _, s := range k.seats {
		if s.state == starting {
			room--
		}
	}
	return max(room, 0)
}

// Working reports a sign that the process of a seat works on its start. The process gets another
// StartTimeout from now, but no more than LongestStart in total.
func (k *Keeper) Working(now time.Duration, n int) {
	if k.state(n) == starting {
		s := &k.seats[n]
		s.at = max(s.at, min(now+k.cfg.StartTimeout, s.began+k.cfg.LongestStart))
	}
}

// Overdue returns the seats whose process did not come up in time. They stay starting, with a
// new timeout, until the caller reports Down.
func (k *Keeper) Overdue(now time.Duration) []int {
	late := k.collect(now, starting)
	for _, n := range late {
		k.seats[n].at = now + k.cfg.StartTimeout
	}
	return late
}

func (k *Keeper) collect(now time.Duration, st seatState) []int {
	var found []int
	for n := range k.seats {
		if s := &k.seats[n]; s.state == st && s.at <= now {
			found = append(found, n)
		}
	}
	return found
}

// Up reports that the process of a seat has finished its start.
func (k *Keeper) Up(n int) { k.seat(n).state = up }

// Down reports that the process of a seat failed or died. The seat becomes empty.
func (k *Keeper) Down(now time.Duration, n int) {
	s := k.seat(n)
	s.score = k.score(s, now) + 1
	s.scored = now
	s.state = empty
}

// Cancel empties the seat without counting a failure.
func (k *Keeper) Cancel(n int) {
	if k.state(n) != empty {
		k.seats[n].state = empty
	}
}

// Pending returns the seats that are scheduled or starting, lowest first.
func (k *Keeper) Pending() []int {
	var found []int
	for n := range k.seats {
		if k.IsPending(n) {
			found = append(found, n)
		}
	}
	return found
}

// IsPending reports whether a seat is scheduled or starting.
func (k *Keeper) IsPending(n int) bool {
	s := k.state(n)
	return s == scheduled || s == starting
}

// Busy reports whether a seat is scheduled, starting or up.
func (k *Keeper) Busy(n int) bool {
	return k.state(n) != empty
}

// Wake returns the time of the next Due or Overdue, or false if there is none.
func (k *Keeper) Wake() (time.Duration, bool) {
	wake, any := time.Duration(math.MaxInt64), false
	held := k.room() == 0 // a scheduled start waits until the caller reports the end of another start
	for n := range k.seats {
		if k.IsPending(n) && !(held && k.seats[n].state == scheduled) {
			wake, any = min(wake, k.seats[n].at), true
		}
	}
	return wake, any
}

// score returns the count of failures at a time, after decay.
func (k *Keeper) score(s *seat, now time.Duration) float64 {
	if s.score == 0 {
		return 0
	}
	return s.score * math.Exp2(-float64(now-s.scored)/float64(k.cfg.HalfLife))
}

// delay returns how long the next start waits.
func (k *Keeper) delay(s *seat, now time.Duration) time.Duration {
	return Delay(k.cfg.Base, k.cfg.Max, k.score(s, now)-k.cfg.Free, k.rng)
}

// Delay returns how long a start waits after failures. It is 0 if there were none beyond those
// that are free, and then grows exponentially with the number of failures from base up to most.
// Jitter of a quarter in both directions keeps processes that failed together from starting
// together.
func Delay(base, most time.Duration, failures float64, rng *rand.Rand) time.Duration {
	if failures <= 0 {
		return 0
	}
	d := min(float64(base)*math.Exp2(failures), float64(most))
	return time.Duration(d * (0.75 + rng.Float64()/2))
}

// Take marks a seat as starting whose process was started by another process.
func (k *Keeper) Take(now time.Duration, n int) {
	s := k.seat(n)
	s.state, s.at, s.began = starting, now+k.cfg.StartTimeout, now
}
