package chaos

import (
	"fmt"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// Kind is the kind of an operation on one key.
type Kind string

// Kinds of operations.
const (
	Get      Kind = "get"
	Put      Kind = "put"
	Delete   Kind = "delete"
	Exchange Kind = "txn" // compare-and-swap: Request.From, Request.To
)

// Request is the input of an operation. No value is written twice. The empty value means that the
// key does not exist.
type Request struct {
	Kind     Kind
	Key      string
	From, To string
}

// Answer is the output of an operation. Was is the value that the operation found. Because every
// operation reports it, a write whose value no operation ever reported can be treated as if it
// never happened.
type Answer struct {
	// Unknown says that there was no answer. The operation may have happened at any time after
	// the call, or not at all.
	Unknown bool
	Was     string
	// Revision is the revision of the change; 0 if nothing changed.
	Revision int64
}

// History records the operations of clients. It is safe for concurrent use.
type History struct {
	began time.Time

	mu     sync.Mutex
	ops    []porcupine.Operation
	known  int
	counts map[Kind]*Outcomes
	acks   []ack
	// wrong is the last error that a client got, and for what.
	wrong string
}

// Outcomes counts the operations of one kind.
type Outcomes struct {
	OK      int `json:"ok"`
	Refused int `json:"refused"` // the error says that nothing was changed
	Failed  int `json:"failed"`  // reads without an answer
	Unknown int `json:"unknown"` // writes without an answer
}

// ack is an acknowledged change with the times of call and answer, in nanoseconds since the start
// of the history.
type ack struct{ call, at int64 }

// NewHistory starts an empty history.
func NewHistory() *History {
	return &History{began: time.Now(), counts: map[Kind]*Outcomes{}}
}

// Now returns the time since the start of the history in nanoseconds, the unit of
// porcupine.Operation's Call and Return.
func (h *History) Now() int64 { return int64(time.Since(h.began)) }

// Add records an operation. Its Input is a Request, and its Output an Answer.
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

// addRefused and addFailed record an operation that changed nothing and reported no value.
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

// note records the error of an operation.
func (h *History) note(r Request, took time.Duration, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wrong = fmt.Sprintf("%s after %s: %v", r.Kind, took.Round(time.Millisecond), err)
}

// lastError returns what note recorded last.
func (h *History) lastError() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.wrong
}

// Known returns the number of operations with an answer.
func (h *History) Known() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.known
}

// lost returns the number of operations without an answer.
func (h *History) lost() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, o := range h.counts {
		n += o.Failed + o.Unknown
	}
	return n
}

// Operations returns the recorded operations.
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
