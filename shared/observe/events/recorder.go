package events

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/plural"
)

const (
	fileName   = "events.jsonl"
	oldName    = "events.1.jsonl"
	totalsName = "totals.json"
	// maxFileBytes is the size at which a new file is begun. It is enough for about ten
	// thousand events, and the file before is kept too.
	maxFileBytes = 2 << 20
	// queueEvents bounds how many events wait for the disk.
	queueEvents = 1024
	// fileMode lets everybody read the file who may enter the data directory.
	fileMode = 0o644
)

// Recorder writes the events of one member. It is safe for concurrent use.
type Recorder struct {
	dir      string
	by       string
	maxBytes int64

	leading atomic.Bool
	lost    atomic.Uint64 // since the start of the process
	totals  atomic.Pointer[Totals]

	mu     sync.Mutex
	queue  chan note
	closed bool
	done   chan struct{}

	// These fields belong to the writing goroutine. unreported is the number of lost lines that
	// are not reported yet, cause is why they were lost, and loaded is set when the totals of
	// earlier leaders are read.
	unreported uint64
	cause      error
	loaded     bool
	written    *Totals // the totals in the file
	// leaving holds the processes that were told to leave. Their deaths are no restarts.
	leaving map[int]bool
}

// note is an event, or the number of a slot for which a process is started.
type note struct {
	event Event
	slot  int
}

// NewRecorder makes the recorder of the member with an address. It opens no file before the
// first event.
func NewRecorder(dir, address string) *Recorder { return newRecorder(dir, address, maxFileBytes) }

func newRecorder(dir, address string, maxBytes int64) *Recorder {
	r := &Recorder{dir: dir, by: address, maxBytes: maxBytes, queue: make(chan note, queueEvents), done: make(chan struct{}), leaving: map[int]bool{}}
	r.totals.Store(&Totals{})
	go r.run()
	return r
}

// SetLeading makes this the recorder that begins new files and writes the totals. The writing
// goroutine reads the totals of earlier leaders. If it cannot, the totals begin at zero.
func (r *Recorder) SetLeading() { r.leading.Store(true) }

// Record writes an event soon. An event without a time gets the current time.
func (r *Recorder) Record(e Event) {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	e.By = r.by
	r.put(note{event: e})
}

func (r *Recorder) put(n note) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		select {
		case r.queue <- n:
			return
		default:
		}
	}
	r.lost.Add(1)
}

// CountStart records that a process is started for a slot. The totals that are written with the
// next event include it.
func (r *Recorder) CountStart(slot int) { r.put(note{slot: slot}) }

// Totals returns the counts since the data directory was made, as far as this leader knows. The
// result does not change afterwards.
func (r *Recorder) Totals() *Totals { return r.totals.Load() }

// LostEvents is how many events were lost since the start of the process.
func (r *Recorder) LostEvents() uint64 { return r.lost.Load() }

// Close writes the queued events, within the timeout. Later events are lost.
func (r *Recorder) Close(timeout time.Duration) {
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		close(r.queue)
	}
	r.mu.Unlock()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-r.done:
	case <-timer.C:
	}
}

func (r *Recorder) run() {
	defer close(r.done)
	for n := range r.queue {
		batch := r.count(nil, n)
		for more := true; more && len(batch) < queueEvents; {
			select {
			case n, ok := <-r.queue:
				if more = ok; ok {
					batch = r.count(batch, n)
				}
			default:
				more = false
			}
		}
		if len(batch) > 0 {
			r.write(batch)
		}
	}
}

// count adds a note to the totals and an event to the batch.
func (r *Recorder) count(batch []Event, n note) []Event {
	if r.leading.Load() {
		if !r.loaded {
			r.loaded = true
			t, err := readTotals(r.dir)
			if t != nil {
				r.totals.Store(t)
				r.written = t
			}
			if err != nil {
				at := n.event.At
				if at.IsZero() {
					at = time.Now()
				}
				batch = append(batch, Event{At: at, Epoch: n.event.Epoch, Kind: Lost, By: r.by,
					Detail: "the counts of restarts and takeovers begin at zero: " + err.Error()})
			}
		}
		if !r.wasAsked(n.event) {
			r.totals.Store(r.totals.Load().with(n))
		}
	}
	if n.slot > 0 {
		return batch
	}
	return append(batch, n.event)
}

// wasAsked reports whether an event is the death of a process that was told to leave.
func (r *Recorder) wasAsked(e Event) bool {
	switch e.Kind {
	case core.MemberLeaving.String():
		r.leaving[e.PID] = true
	case core.MemberDied.String(), core.MemberLeft.String():
		asked := r.leaving[e.PID]
		delete(r.leaving, e.PID)
		return asked
	}
	return false
}

// write appends a batch. It opens the file each time, because events are rare, and because
// another member may have begun a new file.
func (r *Recorder) write(batch []Event) {
	if n := r.unreported; n > 0 {
		batch = append([]Event{{At: batch[0].At, Epoch: batch[0].Epoch, Kind: Lost, By: r.by,
			Detail: fmt.Sprintf("%s could not be written: %v", plural.Count(n, "event"), r.cause)}}, batch...)
	}
	if err := r.append(batch); err != nil {
		newlyLost := uint64(len(batch))
		if r.unreported > 0 {
			newlyLost-- // the line that reports the earlier losses
		}
		r.unreported += newlyLost
		r.cause = err
		r.lost.Add(newlyLost)
		return
	}
	r.unreported = 0
	if t := r.totals.Load(); r.leading.Load() && t != r.written && t.write(r.dir) == nil {
		r.written = t // after a failure they are written with the next event
	}
}

func (r *Recorder) append(batch []Event) error {
	path := filepath.Join(r.dir, fileName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, fileMode)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if r.leading.Load() && info.Size() >= r.maxBytes {
		// The rename is not synced. After a power loss either name may exist, which is fine.
		if err := os.Rename(path, filepath.Join(r.dir, oldName)); err != nil {
			return err
		}
		fresh, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, fileMode)
		if err != nil {
			return err
		}
		_ = f.Close()
		f = fresh
		if info, err = f.Stat(); err != nil {
			return err
		}
	}
	out, err := startOfLine(f, info.Size())
	if err != nil {
		return err
	}
	for _, e := range batch {
		line, err := e.encode()
		if err != nil {
			return err
		}
		out = append(out, line...)
	}
	_, err = f.Write(out)
	return err
}

// startOfLine returns what has to be written first: a line end if the last line is torn.
func startOfLine(f *os.File, size int64) ([]byte, error) {
	if size == 0 {
		return nil, nil
	}
	var last [1]byte
	if _, err := f.ReadAt(last[:], size-1); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if last[0] == '\n' {
		return nil, nil
	}
	return []byte("\n"), nil
}
