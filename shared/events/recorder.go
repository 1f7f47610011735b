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

	"github.com/dynast-io/dynast/shared/core"
)

const (
	fileName   = "events.jsonl"
	oldName    = "events.1.jsonl"
	totalsName = "totals.json"
	// maxFileBytes is the size at which the file is begun anew: some ten
	// thousand events, so twice as many are kept.
	maxFileBytes = 2 << 20
	// queueEvents bounds what waits for the disk.
	queueEvents = 1024
	// fileMode lets those read it who may read the data directory.
	fileMode = 0o644
)

// Recorder writes the events of one member. Safe for concurrent use.
type Recorder struct {
	dir      string
	by       string
	maxBytes int64

	leading atomic.Bool
	lost    atomic.Uint64 // since the start
	totals  atomic.Pointer[Totals]

	mu     sync.Mutex
	queue  chan note
	closed bool
	done   chan struct{}

	// Of the writing goroutine: lines lost and not told of yet, and why; and
	// whether the totals of the leaders before are read.
	untold  uint64
	cause   error
	loaded  bool
	written *Totals // as they are in the file
	// leaving are the processes that were told to leave: no restart follows.
	leaving map[int]bool
}

// note is an event, or a slot for which a process is started.
type note struct {
	event Event
	slot  int
}

// NewRecorder makes the recorder of the member with an address, for a data
// directory. It opens nothing before the first event.
func NewRecorder(dir, address string) *Recorder { return newRecorder(dir, address, maxFileBytes) }

func newRecorder(dir, address string, maxBytes int64) *Recorder {
	r := &Recorder{dir: dir, by: address, maxBytes: maxBytes, queue: make(chan note, queueEvents), done: make(chan struct{}), leaving: map[int]bool{}}
	r.totals.Store(&Totals{})
	go r.run()
	return r
}

// SetLeading makes this the one recorder that begins files anew and keeps the
// totals. Those of the leaders before are read by the goroutine that writes; if
// they cannot be, they begin at zero.
func (r *Recorder) SetLeading() { r.leading.Store(true) }

// Record writes an event soon. Without a time it happened now.
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

// CountStart notes that a process is started for a slot; the totals of the
// next event have it.
func (r *Recorder) CountStart(slot int) { r.put(note{slot: slot}) }

// Totals counts what happened since the data directory was made, as far as
// this leader knows. It is not changed afterwards.
func (r *Recorder) Totals() *Totals { return r.totals.Load() }

// LostEvents counts the events that were not written, since the start of the process.
func (r *Recorder) LostEvents() uint64 { return r.lost.Load() }

// Close writes what waits, for no longer than the timeout. Later events are lost.
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

// count adds a note to the totals, and an event to the batch.
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
		if !r.asked(n.event) {
			r.totals.Store(r.totals.Load().with(n))
		}
	}
	if n.slot > 0 {
		return batch
	}
	return append(batch, n.event)
}

// asked reports whether an event is the end of a process that was told to end.
func (r *Recorder) asked(e Event) bool {
	switch e.Kind {
	case core.MemberLeaving.String():
		r.leaving[e.PID] = true
	case core.MemberDied.String():
		asked := r.leaving[e.PID]
		delete(r.leaving, e.PID)
		return asked
	}
	return false
}

// write appends a batch. The file is opened each time: events are rare, and
// so a file that was begun anew by another member is never written to for long.
func (r *Recorder) write(batch []Event) {
	if n := r.untold; n > 0 {
		batch = append([]Event{{At: batch[0].At, Epoch: batch[0].Epoch, Kind: Lost, By: r.by,
			Detail: fmt.Sprintf("%d events could not be written: %v", n, r.cause)}}, batch...)
	}
	if err := r.append(batch); err != nil {
		told := uint64(len(batch))
		if r.untold > 0 {
			told-- // the line about those before
		}
		r.untold += told
		r.cause = err
		r.lost.Add(told)
		return
	}
	r.untold = 0
	if t := r.totals.Load(); r.leading.Load() && t != r.written && t.write(r.dir) == nil {
		r.written = t // what a full disk refuses is written with the next event
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
		// Not durable, and need not be: after a power loss either name is there.
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

// startOfLine returns what has to be written first: the end of a line that
// was torn.
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
