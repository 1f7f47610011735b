// Package tick gives all periodic work of a process the same moments.
//
// To wake a process costs more than most of what is done then: threads wait for the
// earliest timer, and another looks after them. What is due at the same moment needs
// one wake, where tickers that began at different times need one each.
package tick

import "time"

var origin = time.Now()

// Origin is the moment from which Until counts.
func Origin() time.Time { return origin }

// Until returns the time to the next moment that is a multiple of every after
// Origin, more than 0 and at most every.
func Until(every time.Duration) time.Duration {
	return until(time.Since(origin), every)
}

func until(now, every time.Duration) time.Duration {
	past := now % every
	if past < 0 { // a test's clock
		past += every
	}
	return every - past
}
