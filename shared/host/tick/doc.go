// Package tick makes all periodic work of a process run at the same moments.
//
// Waking a process costs more than most of the work that is done then: threads wait for
// the earliest timer, and another thread looks after them. Work that is due at the same
// moment needs one wake-up. Tickers that began at different times need one each.
package tick
