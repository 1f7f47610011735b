package output

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// busyInterval is how often a Reader looks whether the Keeper has finished a rotation.
const busyInterval = time.Millisecond

// source reads the output by position, from the rotated files and the live one.
type source struct {
	path    string
	state   *os.File // nil if it was not there yet
	live    *os.File // nil if it is not open
	liveID  identity
	rotated *os.File // the rotated file that was read last, or nil
	segment segment  // its range
}

func (s *source) close() {
	for _, f := range []*os.File{s.state, s.live, s.rotated} {
		if f != nil {
			_ = f.Close()
		}
	}
	s.state, s.live, s.rotated = nil, nil, nil
}

// read returns the state. If there is none because no Keeper has run yet, it makes up the
// state that the first one will write.
func (s *source) read() (state, error) {
	if err := s.openState(); err != nil {
		return state{}, err
	}
	if s.state != nil {
		if st, err := readState(s.state); err != nil || st.seq > 0 {
			return st, err
		}
	}
	f, err := os.Open(s.path)
	if err != nil {
		return state{}, fmt.Errorf("open output file: %w", err)
	}
	defer f.Close()
	id, err := identify(f)
	if err != nil {
		return state{}, err
	}
	segments, _, err := list(s.path)
	base := nextBase(lastEnd(segments))
	return state{live: region{id: id, base: base, start: base}}, err
}

// openState opens the state file, and opens it again if somebody has replaced it.
func (s *source) openState() error {
	if s.state != nil {
		var st unix.Stat_t
		if err := unix.Fstat(int(s.state.Fd()), &st); err != nil {
			return fmt.Errorf("read output state: %w", err)
		}
		if st.Nlink > 0 {
			return nil
		}
	}
	f, err := os.Open(s.path + stateSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read output state: %w", err)
	}
	if s.state != nil {
		_ = s.state.Close()
	}
	s.state = f
	return nil
}

// region returns the part of the output that is in the open live file. It opens a newer one
// if there is one, and if the old one was read to its end, as drained tells.
func (s *source) region(st state, position int64) (r region, drained bool, err error) {
	if s.live != nil && s.liveID != st.live.id {
		if s.liveID == st.previous.id {
			info, err := s.live.Stat()
			if err != nil {
				return region{}, false, fmt.Errorf("read output file: %w", err)
			}
			end := st.previous.base + info.Size()
			if position >= 0 && position < end && st.previous.phase != collapsing {
				return st.previous, false, nil
			}
			drained = position == end
		}
		_ = s.live.Close()
		s.live = nil
	}
	if s.live == nil {
		if err := s.openLive(st.live); err != nil {
			return region{}, false, err
		}
	}
	return st.live, drained, nil
}

// openLive opens the live file. If the path leads to another one, it tries the descriptor
// of the Keeper. If the file cannot be opened, s.live stays nil.
func (s *source) openLive(r region) error {
	for _, path := range []string{s.path, fmt.Sprintf("/proc/%d/fd/%d", r.pid, r.fd)} {
		f, err := os.Open(path)
		if err != nil {
			if path == s.path && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("open output file: %w", err)
			}
			continue
		}
		id, err := identify(f)
		if err != nil || id != r.id {
			_ = f.Close()
			continue
		}
		s.live, s.liveID = f, id
		return nil
	}
	return nil
}

// base returns the position of the live file's byte 0. It returns false if that cannot be
// told because the Keeper is removing the beginning of the file.
func (s *source) base(r region) (base int64, ok bool, err error) {
	if r.phase != collapsing {
		return r.base, true, nil
	}
	if busy, err := locked(s.state); err != nil || busy {
		return 0, false, err
	}
	hole, err := firstData(s.live)
	if err != nil || hole > 0 {
		return r.base, true, err
	}
	return r.start, true, nil
}

// chunk is a piece of output.
type chunk struct {
	at  int64 // its position
	n   int   // its length
	gap bool  // output before it is missing
	// drained means that all output of a live file was read, and that another file follows.
	drained bool
}

// readAt reads output at a position, or the next output behind it if that is missing. A
// negative position means the beginning. It returns io.EOF at the end.
func (s *source) readAt(ctx context.Context, b []byte, position int64) (chunk, error) {
	c := chunk{at: position}
	for {
		if err := ctx.Err(); err != nil {
			return c, err
		}
		again, err := s.tryRead(b, &c)
		if err != nil || !again {
			return c, err
		}
		if c.n < 0 {
			c.n = 0
			wait(ctx, busyInterval)
		}
	}
}

// wait returns after a duration or when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// tryRead returns true if it must be called again, with c.n < 0 if the Keeper is busy.
func (s *source) tryRead(b []byte, c *chunk) (again bool, err error) {
	st, err := s.read()
	if err != nil {
		return false, err
	}
	r, drained, err := s.region(st, c.at)
	if err != nil {
		return false, err
	}
	c.drained = c.drained || drained || st.previous.phase == copied && c.at == st.previous.start
	if c.at < r.start {
		found, err := s.readRotated(b, c)
		if err != nil || found {
			return false, err
		}
		return true, s.skip(c, r)
	}
	if s.live == nil {
		return false, io.EOF
	}
	base, ok, err := s.base(r)
	if err != nil {
		return false, err
	}
	if !ok {
		c.n = -1
		return true, nil
	}
	n, err := s.live.ReadAt(b, c.at-base)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("read output file: %w", err)
	}
	// If the Keeper has begun another step, this may be another part of the output.
	after, err := s.read()
	if err != nil {
		return false, err
	}
	baseAfter, ok, err := s.base(r)
	if err != nil {
		return false, err
	}
	if !ok || after.seq != st.seq || baseAfter != base {
		return true, nil
	}
	if n == 0 {
		return false, io.EOF
	}
	c.n = n
	return false, nil
}

// readRotated reads from the rotated file that holds a position. It returns false if there
// is none.
func (s *source) readRotated(b []byte, c *chunk) (bool, error) {
	if s.rotated == nil || c.at < s.segment.start || c.at >= s.segment.end {
		if ok, err := s.openRotated(c.at); err != nil || !ok {
			return false, err
		}
	}
	n, err := s.rotated.ReadAt(b[:min(int64(len(b)), s.segment.end-c.at)], c.at-s.segment.start)
	if n == 0 {
		return false, fmt.Errorf("read rotated output file: %w", err)
	}
	c.n = n
	return true, nil
}

func (s *source) openRotated(position int64) (bool, error) {
	segments, _, err := list(s.path)
	if err != nil {
		return false, err
	}
	for _, g := range segments {
		if position < g.start || position >= g.end {
			continue
		}
		f, err := os.Open(g.path)
		if errors.Is(err, fs.ErrNotExist) { // removed meanwhile
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("read rotated output file: %w", err)
		}
		if s.rotated != nil {
			_ = s.rotated.Close()
		}
		s.rotated, s.segment = f, g
		return true, nil
	}
	return false, nil
}

// skip moves to the next output that still exists. No output is missing if a live file was
// just read to its end and a new one follows it.
func (s *source) skip(c *chunk, r region) error {
	segments, _, err := list(s.path)
	if err != nil {
		return err
	}
	next := r.start
	for _, g := range segments {
		if g.end > c.at && g.end > g.start {
			next = min(next, max(g.start, c.at, 0))
			break
		}
	}
	if next > c.at && c.at >= 0 && (!c.drained || next%fileSpan != 0) {
		c.gap = true
	}
	c.at = max(next, 0)
	return nil
}

// extent is a part of the output that exists without a gap.
type extent struct{ start, end int64 }

// extents returns the parts of the output, in order.
func (s *source) extents(ctx context.Context) ([]extent, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		st, err := s.read()
		if err != nil {
			return nil, err
		}
		r, _, err := s.region(st, -1)
		if err != nil {
			return nil, err
		}
		segments, _, err := list(s.path)
		if err != nil {
			return nil, err
		}
		end := r.start
		ok := true
		if s.live != nil {
			var base int64
			if base, ok, err = s.base(r); err != nil {
				return nil, err
			}
			info, err := s.live.Stat()
			if err != nil {
				return nil, fmt.Errorf("read output file: %w", err)
			}
			end = base + info.Size()
		}
		after, err := s.read()
		if err != nil {
			return nil, err
		}
		if !ok || after.seq != st.seq {
			wait(ctx, busyInterval)
			continue
		}
		var out []extent
		add := func(start, end int64) {
			if n := len(out); n > 0 && start <= out[n-1].end {
				out[n-1].end = max(out[n-1].end, end)
			} else if end > start {
				out = append(out, extent{start, end})
			}
		}
		for _, g := range segments {
			add(g.start, min(g.end, max(r.start, g.start)))
		}
		add(r.start, end)
		return out, nil
	}
}
