package logging

import (
	"fmt"
	"io"
	"slices"
	"sync"
)

// output is a bounded queue of lines with the goroutine that writes them.
type output struct {
	maxBytes, maxLines int
	report             func(lines uint64, cause error) []byte

	mu    sync.Mutex
	lines [][]byte // the oldest first
	bytes int      // of lines
	busy  bool     // the goroutine is writing a line that it took
	w     io.Writer
	// lost counts lines since the last report, with the last error; total
	// counts them since the start.
	lost, total uint64
	cause       error
	closed      bool
	wake        chan struct{} // has room for one
	count       uint64        // of lines ever queued
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

// start begins to write to w. A w that is an io.Closer is closed by close.
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

// put queues a line, at the cost of the oldest ones if there is no room.
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

// shift takes the oldest line; the caller holds mu.
func (o *output) shift() []byte {
	line := o.lines[0]
	o.lines[0] = nil
	o.lines = o.lines[1:]
	o.bytes -= len(line)
	return line
}

// lose counts lost lines; the caller holds mu.
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
			c.Close() // nobody is left to be told of an error
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

// next takes the oldest line, and the count of those lost before it.
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

// finished is how many lines are written or lost; the caller holds mu.
func (o *output) finished() uint64 {
	n := o.count - uint64(len(o.lines))
	if o.busy {
		n--
	}
	return n
}

// release wakes those that waited long enough; the caller holds mu.
func (o *output) release() {
	o.waiters = slices.DeleteFunc(o.waiters, func(w waiter) bool {
		if !o.closed && o.finished() < w.upTo {
			return false
		}
		close(w.done)
		return true
	})
}

// written is closed when every line put before is written or given up.
func (o *output) written() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	w := waiter{upTo: o.count, done: make(chan struct{})}
	o.waiters = append(o.waiters, w)
	o.release()
	return w.done
}

// close ends the goroutine, after the line that it is writing, and with it w.
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

// write turns a panicking writer into one that fails.
func write(w io.Writer, p []byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("write log: panic: %v", r)
		}
	}()
	_, err = w.Write(p)
	return err
}
