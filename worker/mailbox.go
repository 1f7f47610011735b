package worker

import (
	"sync"
	"time"

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
	b.mu.Lock()
	b.queue = append(b.queue, m)
	b.mu.Unlock()
	select {
	case b.notify <- struct{}{}:
	default:
	}
}

// take returns everything that waits, in order; it waits for something until
// the timer fires. spare is an empty slice to be used for the next queue.
func (b *mailbox) take(spare []mail, timer *time.Timer) []mail {
	for {
		b.mu.Lock()
		if len(b.queue) > 0 {
			q := b.queue
			b.queue = spare[:0]
			b.mu.Unlock()
			return q
		}
		b.mu.Unlock()
		select {
		case <-b.notify:
		case <-timer.C:
			return nil
		}
	}
}
