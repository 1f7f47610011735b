// Package placement decides when a host may run a service that runs on one host at a time. These rules
// are in this package and nowhere else.
//
// The host that may run the service has the ownership: a key in the store that is attached to a
// lease. The create revision of the key is the fence, which grows with each ownership. A Core is a
// state machine: Step takes the time and one Event and returns Effects. It has no clock, no I/O and no
// goroutines. There is one Core for each service, in the leader of the host.
//
// # The promise
//
// The programs of two hosts never run at the same time. It holds for any delay, loss and order of
// messages, as long as
//
//   - each clock runs at a rate that is at most Drift away from the true one. A clock may say any time
//     of day.
//   - the caller carries out Kill within Reserve. A leader that has died is followed by another one
//     in less time, which continues with the State that was saved.
//
// # Why it holds
//
// The holder counts the life of its lease from the moment before it sent the request, by a clock that
// also counts while the host sleeps (CLOCK_BOOTTIME). The store counts from a later moment: when it
// grants or renews the lease, or when another leader of the store takes over, which gives each lease
// its whole life again. A renewal counts only if the store confirmed, after the request was sent, that
// its leader still leads. So the store's end of the lease is never before the holder's deadline, apart
// from the rates of the clocks, for which the deadline is earlier by 2 x Drift.
//
// The holder stops its program before that:
//
//	sent                    late                       kill          deadline
//	 |------- Grace ---------|------- stop timeout -----|--- Reserve ---|- drift -| the lease ends
//	   renewals are tried      the program is stopping    it is killed
//
// From late on no renewal counts any more. An answer that comes then can belong to a store that another
// host already uses: a leader of the store that was frozen can still revoke the lease.
//
// The ownership is given back only when no process of the service is left.
package placement
