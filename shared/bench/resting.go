package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Resting is what server processes spend and hold, with the data that they were given.
type Resting struct {
	Schema   int      `json:"schema"`
	Workload string   `json:"workload"` // idle or memory
	Seconds  float64  `json:"seconds"`
	Keys     int      `json:"keys,omitempty"`
	Servers  *Servers `json:"servers"`
}

// ErrNoServers says that the processes to look at were not named.
var ErrNoServers = errors.New("no server process is known: name them with --pids, or their data directory")

// Idle looks at server processes for a while and leaves them alone.
func Idle(ctx context.Context, pids []int, d time.Duration) (*Resting, error) {
	if len(pids) == 0 {
		return nil, ErrNoServers
	}
	before, err := readServers(pids)
	if err != nil {
		return nil, err
	}
	select {
	case <-time.After(d):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	after, err := readServers(pids)
	if err != nil {
		return nil, fmt.Errorf("a server process did not last: %w", err)
	}
	s := after.since(before)
	return &Resting{Schema: Schema, Workload: "idle", Seconds: after.at.Sub(before.at).Seconds(), Servers: s}, nil
}

// Memory writes every key of a load once, lets the servers come to rest for
// its Duration, and looks at what they hold.
func Memory(ctx context.Context, l Load) (*Resting, error) {
	l.Workload = "put"
	if err := l.check(); err != nil {
		return nil, err
	}
	if len(l.PIDs) == 0 {
		return nil, ErrNoServers
	}
	c, err := l.dial()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := l.fillKeys(ctx, c); err != nil {
		return nil, err
	}
	r, err := Idle(ctx, l.PIDs, l.Duration)
	if err != nil {
		return nil, err
	}
	r.Workload, r.Keys = "memory", l.Keys
	return r, nil
}

// Render prints a result for people.
func (r *Resting) Render(w io.Writer) error {
	if _, err := fmt.Fprintf(w, "%s, %.1f s\n", r.Workload, r.Seconds); err != nil {
		return err
	}
	r.Servers.render(w)
	return nil
}
