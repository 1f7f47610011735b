package logview

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"
)

const (
	// reorder is how many entries are held back, to bring slightly misplaced entries into
	// order.
	reorder = 256
	// pollInterval is how often Follow looks for new lines.
	pollInterval = 100 * time.Millisecond
)

// Query says what to show.
type Query struct {
	// Directory has a file for each member. Alternatively, File has the lines of all members.
	Directory, File string
	// Address is the only member to show. Empty means all.
	Address string
	// Since leaves out older entries.
	Since time.Time
	// Tail is how many of the last entries are shown before following. Negative means all.
	Tail int
}

func (q Query) wants(e *Entry) bool {
	return !e.At.Before(q.Since) && (q.Address == "" || q.File == "" || e.Address == q.Address)
}

// View shows logs.
type View struct {
	q     Query
	tails map[string]*tail // the current files, by path
}

// New makes a view.
func New(q Query) *View { return &View{q: q, tails: map[string]*tail{}} }

// Close closes the files.
func (v *View) Close() {
	for _, t := range v.tails {
		t.close()
	}
}

// Show calls f with the existing entries, ordered by time.
func (v *View) Show(f func(*Entry) error) error {
	if v.q.Tail >= 0 {
		var last []*Entry
		err := v.merge(func(e *Entry) error {
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
	return v.merge(f)
}

// stream reads the files of one member, one after the other.
type stream struct {
	paths []string
	tail  *tail
	head  *Entry
}

// advance reads the next entry into head. head is nil at the end.
func (s *stream) advance(v *View) error {
	s.head = nil
	for {
		if s.tail != nil {
			e, err := s.tail.next()
			if err != nil {
				return err
			}
			if e != nil {
				s.head = e
				return nil
			}
			if len(s.paths) == 0 { // the current file stays open for Follow
				s.head = s.tail.made.flush()
				return nil
			}
			made := s.tail.made
			s.tail.close()
			s.tail = &tail{path: s.paths[0], made: made} // an entry can continue after a rotation
		} else {
			if len(s.paths) == 0 {
				return nil
			}
			s.tail = &tail{path: s.paths[0]}
		}
		s.paths = s.paths[1:]
		if _, err := s.tail.open(); err != nil {
			return err
		}
		if len(s.paths) == 0 {
			v.tails[s.tail.path] = s.tail
		}
	}
}

// streams is a heap, ordered by the heads.
type streams []*stream

func (s streams) Len() int           { return len(s) }
func (s streams) Less(i, j int) bool { return s[i].head.At.Before(s[j].head.At) }
func (s streams) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *streams) Push(x any)        { *s = append(*s, x.(*stream)) }
func (s *streams) Pop() any {
	old := *s
	x := old[len(old)-1]
	*s = old[:len(old)-1]
	return x
}

func (v *View) merge(f func(*Entry) error) error {
	files, err := v.files()
	if err != nil {
		return err
	}
	var h streams
	for _, m := range files {
		s := &stream{paths: m.paths}
		if err := s.advance(v); err != nil {
			return err
		}
		if s.head != nil {
			h = append(h, s)
		}
	}
	heap.Init(&h)
	var held []*Entry
	for h.Len() > 0 {
		s := h[0]
		if v.q.wants(s.head) {
			held = insert(held, s.head)
		}
		if err := s.advance(v); err != nil {
			return err
		}
		if s.head == nil {
			heap.Pop(&h)
		} else {
			heap.Fix(&h, 0)
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
	return nil
}

// insert inserts an entry into a short list that is ordered by time. It nearly always belongs
// at the end.
func insert(held []*Entry, e *Entry) []*Entry {
	i := len(held)
	for i > 0 && e.At.Before(held[i-1].At) {
		i--
	}
	return slices.Insert(held, i, e)
}

func (v *View) files() ([]memberFiles, error) {
	if v.q.File != "" {
		return []memberFiles{{paths: []string{v.q.File}}}, nil
	}
	return list(v.q.Directory, v.q.Address)
}

// Follow calls f with the entries after Show, until ctx ends. It includes members that begin to
// log meanwhile.
func (v *View) Follow(ctx context.Context, f func(*Entry) error) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		files, err := v.files()
		if err != nil {
			return err
		}
		for _, m := range files {
			// A member with closed files only has no file that grows.
			path := m.paths[len(m.paths)-1]
			if v.tails[path] == nil && !rotated.MatchString(filepath.Base(path)) {
				v.tails[path] = &tail{path: path}
			}
		}
		var came []*Entry
		for _, t := range v.tails {
			es, pollErr := t.poll()
			err = errors.Join(err, pollErr)
			came = append(came, es...)
		}
		slices.SortStableFunc(came, func(a, b *Entry) int { return a.At.Compare(b.At) })
		for _, e := range came {
			if !v.q.wants(e) {
				continue
			}
			if err := f(e); err != nil {
				return err
			}
		}
		if err != nil {
			return fmt.Errorf("follow logs: %w", err)
		}
	}
}
