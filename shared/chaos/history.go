package chaos

import (
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// Kind of an operation on one key.
type Kind string

// The kinds of operations.
const (
	Get      Kind = "get"
	Put      Kind = "put"
	Delete   Kind = "delete"
	Exchange Kind = "txn" // compare-and-swap: Request.From, Request.To
)

// Request is the input of an operation. No value is written twice; the empty
// one means that the key is not there.
type Request struct {
	Kind     Kind
	Key      string
	From, To string
}

// Answer is the output of an operation. Was is the value that it found: each
// operation tells it, so a write of which nobody ever saw anything could as well
// not have happened.
type Answer struct {
	// Unknown: the outcome was not told. It may or may not have happened, at any
	// time after the call.
	Unknown bool
	Was     string
	// Revision is that of the change; 0 when nothing changed.
	Revision int64
}

// History is what clients saw. It is safe for use by several goroutines.
type History struct {
	began time.Time

	mu     sync.Mutex
	ops    []porcupine.Operation
	known  int
	counts map[Kind]*Outcomes
	acks   []ack
}

// Outcomes counts the operations of one kind.
type Outcomes struct {
	OK      int `json:"ok"`
	Refused int `json:"refused"` // with an error that says that nothing happened
	Failed  int `json:"failed"`  // reads without an answer
	Unknown int `json:"unknown"` // writes without an answer
}

// ack is an acknowledged change: when it was called and when it was answered,
// in nanoseconds since the history began.
type ack struct{ call, at int64 }

// NewHistory begins a history now.
func NewHistory() *History {
	return &History{began: time.Now(), counts: map[Kind]*Outcomes{}}
}

// Now is the time since the history began, in nanoseconds: that of
// porcupine.Operation's Call and Return.
func (h *History) Now() int64 { return int64(time.Since(h.began)) }

// Add records an operation: Input is a Request, Output an Answer.
func (h *History) Add(op porcupine.Operation) {
	r, a := op.Input.(Request), op.Output.(Answer)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, op)
	if a.Unknown {
		h.count(r.Kind).Unknown++
		return
	}
	h.known++
	h.count(r.Kind).OK++
	if r.Kind != Get {
		h.acks = append(h.acks, ack{op.Call, op.Return})
	}
}

func (h *History) count(k Kind) *Outcomes {
	if h.counts[k] == nil {
		h.counts[k] = &Outcomes{}
	}
	return h.counts[k]
}

// addRefused and addFailed record that an operation told nothing and did
// nothing.
func (h *History) addRefused(k Kind) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count(k).Refused++
}

func (h *History) addFailed(k Kind) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count(k).Failed++
}

// Known is the number of operations with an answer.
func (h *History) Known() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.known
}

// lost is the number of operations without an answer.
func (h *History) lost() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, o := range h.counts {
		n += o.Failed + o.Unknown
	}
	return n
}

// Operations returns what was recorded so far.
func (h *History) Operations() []porcupine.Operation {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ops[:len(h.ops):len(h.ops)]
}

func (h *History) acked() []ack {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.acks[:len(h.acks):len(h.acks)]
}
