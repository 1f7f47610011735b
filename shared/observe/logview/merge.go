package logview

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"
)

const (
	// reorder is how many entries are held back, to bring slightly misplaced entries into
	// order.
	reorder = 256
	// pollInterval is how often Follow looks for new lines.
	pollInterval = 100 * time.Millisecond
	// searchInterval is how often Follow looks for new members and instances. It is longer,
	// because each instance has a directory of its own.
	searchInterval = 500 * time.Millisecond
)

// Query says what to show.
type Query struct {
	// Directory has a file for each member. Alternatively, File has the lines of all members.
	// If both are empty, no members are shown.
	Directory, File string
	// Addresses are the members to show. None means all.
	Addresses []string
	// Services is the directory of the services. If it is empty, no services are shown.
	Services string
	// Names are the services and instances to show. None means all.
	Names []string
	// Since leaves out older entries.
	Since time.Time
	// Tail is how many of the last entries are shown before following. Negative means all.
	Tail int
}

func (q Query) wants(e *Entry) bool {
	return !e.At.Before(q.Since) && (e.Instance != "" || q.File == "" || len(q.Addresses) == 0 || slices.Contains(q.Addresses, e.Address))
}

// tail reads the log of a member or the output of an instance as it grows.
type tail interface {
	// next returns the next entry, or nil at the present end.
	next(ctx context.Context) (*Entry, error)
	// flush returns the unfinished entry at the present end, if there is one.
	flush() *Entry
	// settled is flush, but only if nothing was added to that entry since the last call.
	settled() *Entry
	close()
}

// stream is a tail and the entry that was read from it last, which waits for its turn.
type stream struct {
	tail tail
	head *Entry
}

// View shows logs. Only one goroutine may use it.
type View struct {
	q       Query
	streams map[string]*stream
}

// New makes a view.
func New(q Query) *View { return &View{q: q, streams: map[string]*stream{}} }

// Close closes the files.
func (v *View) Close() {
	for _, s := range v.streams {
		s.tail.close()
	}
}

// Show calls f with the existing entries, ordered by time.
func (v *View) Show(ctx context.Context, f func(*Entry) error) error {
	if err := v.search(ctx, true); err != nil {
		return err
	}
	if v.q.Tail < 0 {
		return v.merge(ctx, tail.flush, time.Time{}, f)
	}
	var last []*Entry
	err := v.merge(ctx, tail.flush, time.Time{}, func(e *Entry) error {
		if last = append(last, e); len(last) > 2*v.q.Tail+1024 {
			last = append(last[:0], last[len(last)-v.q.Tail:]...)
		}
		return nil
	})
	for _, e := range last[max(0, len(last)-v.q.Tail):] {
		if err := f(e); err != nil {
			return err
		}
	}
	return err
}

// Follow calls f with the entries after Show, until ctx ends. It includes members and instances
// that begin to log meanwhile.
func (v *View) Follow(ctx context.Context, f func(*Entry) error) error {
	return v.FollowUntil(ctx, nil, f)
}

// FollowUntil is Follow, but it also ends when ended is closed. Then it has called f with all
// entries that existed at that time.
func (v *View) FollowUntil(ctx context.Context, ended <-chan struct{}, f func(*Entry) error) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	var search time.Time
	for {
		if now := time.Now(); !now.Before(search) {
			search = now.Add(searchInterval)
			if err := v.search(ctx, false); err != nil {
				return err
			}
		}
		// A program that writes faster than it is read must not prevent the search.
		err := v.merge(ctx, tail.settled, search, f)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("follow logs: %w", err)
		}
		select {
		case <-tick.C:
		case <-ended:
			if err := v.search(ctx, false); err != nil {
				return err
			}
			return v.merge(ctx, tail.flush, time.Time{}, f)
		case <-ctx.Done():
			return nil
		}
	}
}

// search finds the members and the instances, and adds a stream for each new one. What exists at
// first can be long, so it is read from the place where the query begins. Later everything is new.
func (v *View) search(ctx context.Context, first bool) error {
	found := 0
	if v.q.Services != "" {
		ids, err := Instances(v.q.Services)
		if err != nil {
			return err
		}
		current := map[string]bool{}
		for _, id := range ids {
			if !Selected(v.q.Names, id) {
				continue
			}
			found++
			key := "services/" + id
			current[key] = true
			if v.streams[key] != nil {
				continue
			}
			t := newInstanceTail(v.q.Services, id)
			v.streams[key] = &stream{tail: t}
			if !first {
				continue
			}
			if err := t.seek(ctx, v.q); err != nil {
				return err
			}
		}
		// If somebody deletes the directory of an instance and it is made again, then its
		// output begins anew.
		for key, s := range v.streams {
			if _, ok := s.tail.(*instanceTail); ok && s.head == nil && !current[key] {
				s.tail.close()
				delete(v.streams, key)
			}
		}
	}
	members, err := v.members()
	if errors.Is(err, fs.ErrNotExist) && (found > 0 || !first) {
		err = nil // there is something else to show, and the directory can still appear
	}
	for _, m := range members {
		if key := "members/" + m.name; v.streams[key] == nil {
			v.streams[key] = &stream{tail: &memberTail{closed: m.closed, path: m.current}}
		}
	}
	return err
}

func (v *View) members() ([]memberFiles, error) {
	switch {
	case v.q.File != "":
		return []memberFiles{{current: v.q.File}}, nil
	case v.q.Directory != "":
		return list(v.q.Directory, v.q.Addresses)
	}
	return nil, nil
}

// advance reads the next entry into the head. At the present end it takes what atEnd returns.
func (s *stream) advance(ctx context.Context, atEnd func(tail) *Entry) error {
	var err error
	if s.head, err = s.tail.next(ctx); s.head == nil && err == nil {
		s.head = atEnd(s.tail)
	}
	return err
}

// queue is a heap of streams, ordered by their heads.
type queue []*stream

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].head.order().Before(q[j].head.order()) }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)        { *q = append(*q, x.(*stream)) }
func (q *queue) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}

// merge calls f with the entries up to the present ends of all streams, ordered by time. It ends
// before that at a deadline, if there is one. The next call goes on from there.
func (v *View) merge(ctx context.Context, atEnd func(tail) *Entry, deadline time.Time, f func(*Entry) error) error {
	var q queue
	var failed []error // returned after what the other streams have
	advance := func(s *stream) {
		if err := s.advance(ctx, atEnd); err != nil {
			failed = append(failed, err)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(v.streams)) {
		s := v.streams[key]
		if s.head == nil {
			advance(s)
		}
		if s.head != nil {
			q = append(q, s)
		}
	}
	heap.Init(&q)
	var held []*Entry
	for n := 0; q.Len() > 0; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if n%reorder == reorder-1 && !deadline.IsZero() && !time.Now().Before(deadline) {
			break
		}
		s := q[0]
		if v.q.wants(s.head) {
			held = insert(held, s.head)
		}
		advance(s)
		if s.head == nil {
			heap.Pop(&q)
		} else {
			heap.Fix(&q, 0)
		}
		if len(held) > reorder {
			if err := f(held[0]); err != nil {
				return err
			}
			held = held[1:]
		}
	}
	for _, e := range held {
		if err := f(e); err != nil {
			return err
		}
	}
	return errors.Join(failed...)
}

// insert inserts an entry into a short list that is ordered by time. It nearly always belongs
// at the end.
func insert(held []*Entry, e *Entry) []*Entry {
	i := len(held)
	for i > 0 && e.order().Before(held[i-1].order()) {
		i--
	}
	return slices.Insert(held, i, e)
}
