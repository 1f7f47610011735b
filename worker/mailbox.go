package worker

import (
	"sync"

	"github.com/dynast-io/dynast/shared/core"
)

// mail is an event for the core, or a question to the loop.
type mail struct {
	event core.Event
	ask   func()
}

// mailbox is the loop's queue. Posting never blocks, so that the loop and
// those that it waits for can post to it; what is posted is bounded by those who
// post (a window of messages for each follower, one result for each effect).
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

// put is post without waking the loop, for who sees to the mail itself.
func (b *mailbox) put(m mail) {
	b.mu.Lock()
	b.queue = append(b.queue, m)
	b.mu.Unlock()
}

// take returns everything that waits, in order. spare is an empty slice to be
// used for the next queue.
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

// wake has the loop look at its mail and its timer.
func (b *mailbox) wake() {
	select {
	case b.notify <- struct{}{}:
	default:
	}
}
