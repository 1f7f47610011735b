package worker

import (
	"sync"

	"github.com/dynast-io/dynast/shared/rules/core"
)

// mail is an event for the core, or a function to run on the loop's goroutine.
type mail struct {
	event core.Event
	ask   func()
}

// mailbox is the loop's queue. Posting never blocks, so the loop can post to it, and so can the
// goroutines that the loop waits for. The senders bound the queue: a window of messages for
// each follower, and one result for each effect.
type mailbox struct {
	mu     sync.Mutex
	queue  []mail
	notify chan struct{}
}

func newMailbox() *mailbox { return &mailbox{notify: make(chan struct{}, 1)} }

func (b *mailbox) post(m mail) {
	b.put(m)
	b.wake()
}

// put is post without waking the loop. The caller makes sure that the mail is read.
func (b *mailbox) put(m mail) {
	b.mu.Lock()
	b.queue = append(b.queue, m)
	b.mu.Unlock()
}

// take returns all queued mail in order. spare is an empty slice that the next queue reuses.
func (b *mailbox) take(spare []mail) []mail {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := b.queue
	b.queue = spare[:0]
	return q
}

func (b *mailbox) empty() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.queue) == 0
}

// wake makes the loop check its mail and its timer.
func (b *mailbox) wake() {
	select {
	case b.notify <- struct{}{}:
	default:
	}
}
