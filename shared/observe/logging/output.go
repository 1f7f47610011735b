package logging

import (
	"fmt"
	"io"
	"slices"
	"sync"
)

// output is a bounded queue of lines and the goroutine that writes them.
type output struct {
	maxBytes, maxLines int
	report             func(lines uint64, cause error) []byte

	mu    sync.Mutex
	lines [][]byte // oldest first
	bytes int      // of lines
	busy  bool     // the goroutine is writing a line
	w     io.Writer
	// lost is the number of lines lost since the last report, and cause the last error. total
	// is the number of lines lost since the start.
	lost, total uint64
	cause       error
	closed      bool
	wake        chan struct{} // has a buffer of one
	count       uint64        // of all lines ever queued
	waiters     []waiter
}

// waiter waits until the first `upTo` lines are written or lost.
type waiter struct {
	upTo uint64
	done chan struct{}
}

func newOutput(maxBytes, maxLines int, report func(uint64, error) []byte) *output {
	return &output{maxBytes: maxBytes, maxLines: maxLines, report: report, wake: make(chan struct{}, 1)}
}

// start begins writing to w. If w is an io.Closer, close closes it.
func (o *output) start(w io.Writer) {
	o.mu.Lock()
	o.w = w
	o.mu.Unlock()
	go o.run(w)
}

func (o *output) started() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.w != nil
}

// put queues a line. If there is no room, it drops the oldest lines.
func (o *output) put(line []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	if len(line) > o.maxBytes {
		o.lose(1, nil)
		return
	}
	for len(o.lines) > 0 && (len(o.lines) >= o.maxLines || o.bytes+len(line) > o.maxBytes) {
		o.shift()
		o.lose(1, nil)
	}
	o.lines = append(o.lines, line)
	o.count++
	o.bytes += len(line)
	o.signal()
}

// shift removes and returns the oldest line. The caller holds mu.
func (o *output) shift() []byte {
	line := o.lines[0]
	o.lines[0] = nil
	o.lines = o.lines[1:]
	o.bytes -= len(line)
	return line
}

// lose counts lost lines. The caller holds mu.
func (o *output) lose(n uint64, cause error) {
	o.lost += n
	o.total += n
	o.cause = cause
}

func (o *output) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *output) run(w io.Writer) {
	defer func() {
		if c, ok := w.(io.Closer); ok {
			c.Close() // an error could not be reported to anybody
		}
	}()
	for {
		line, lost, cause, closed := o.next()
		if closed {
			return
		}
		if line == nil {
			<-o.wake
			continue
		}
		if lost > 0 {
			if err := write(w, o.report(lost, cause)); err != nil {
				o.unreported(lost)
			}
		}
		o.wrote(write(w, line))
	}
}

// next removes and returns the oldest line, and returns the number of lines lost before it.
func (o *output) next() (line []byte, lost uint64, cause error, closed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.release()
	if o.closed || len(o.lines) == 0 {
		return nil, 0, nil, o.closed
	}
	o.busy = true
	lost, cause = o.lost, o.cause
	o.lost, o.cause = 0, nil
	return o.shift(), lost, cause, false
}

func (o *output) unreported(lost uint64) {
	o.mu.Lock()
	o.lost += lost
	o.mu.Unlock()
}

func (o *output) wrote(err error) {
	o.mu.Lock()
	o.busy = false
	if err != nil {
		o.lose(1, err)
	}
	o.mu.Unlock()
}

// finished is how many lines are written or lost. The caller holds mu.
func (o *output) finished() uint64 {
	n := o.count - uint64(len(o.lines))
	if o.busy {
		n--
	}
	return n
}

// release wakes the waiters whose lines are finished. The caller holds mu.
func (o *output) release() {
	o.waiters = slices.DeleteFunc(o.waiters, func(w waiter) bool {
		if !o.closed && o.finished() < w.upTo {
			return false
		}
		close(w.done)
		return true
	})
}

// written returns a channel that is closed when all earlier lines are written or lost.
func (o *output) written() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	w := waiter{upTo: o.count, done: make(chan struct{})}
	o.waiters = append(o.waiters, w)
	o.release()
	return w.done
}

// close ends the goroutine after its current line, and closes w.
func (o *output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	o.closed = true
	if d, ok := o.w.(*descriptor); ok {
		d.stop.Store(true)
	}
	o.signal()
}

func (o *output) dropped() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.total
}

// write turns a panic of the writer into an error.
func write(w io.Writer, p []byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("write log: panic: %v", r)
		}
	}()
	_, err = w.Write(p)
	return err
}
