package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Resting is the cost and the memory of server processes that hold the given data and get no
// requests.
type Resting struct {
	Schema   int      `json:"schema"`
	Workload string   `json:"workload"` // idle or memory
	Seconds  float64  `json:"seconds"`
	Keys     int      `json:"keys,omitempty"`
	Servers  *Servers `json:"servers"`
}

// ErrNoServers says that no server process was named.
var ErrNoServers = errors.New("no server process is known: name the processes with --pids, or name their data directory")

// Idle measures server processes for a while without sending them requests.
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
	after, err := before.again()
	if err != nil {
		return nil, err
	}
	s := after.since(before)
	return &Resting{Schema: Schema, Workload: "idle", Seconds: after.at.Sub(before.at).Seconds(), Servers: s}, nil
}

// Memory writes every key of a load once, waits for the load's Duration so that the servers come
// to rest, and then measures their memory.
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
	defer l.removeKeys(ctx, c)
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

// Render prints the result as text.
func (r *Resting) Render(w io.Writer) error {
	if _, err := fmt.Fprintf(w, "%s, %.1f s\n", r.Workload, r.Seconds); err != nil {
		return err
	}
	r.Servers.render(w)
	return nil
}
