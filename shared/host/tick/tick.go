package tick

import "time"

var origin = time.Now()

// Origin returns the moment from which Until counts.
func Origin() time.Time { return origin }

// Until returns the time until the next moment that is a multiple of every after Origin. It is
// more than 0 and at most every.
func Until(every time.Duration) time.Duration {
	return until(time.Since(origin), every)
}

func until(now, every time.Duration) time.Duration {
	past := now % every
	if past < 0 { // only with the clock of a test
		past += every
	}
	return every - past
}
