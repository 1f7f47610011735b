// Package link connects a member to the other members. A follower has one stream to its leader
// (upstream). A leader has one session for each follower (downstream).
//
// The loop says what to send. Each stream has one goroutine that sends at the pace of the other
// side, and one that receives. Received messages go to the core as events, and to the replica
// as entries and snapshots. No handler makes a gRPC call, so a request in flight cannot delay a
// takeover.
//
// This package measures how long a member is silent. Package shared/rules/core decides what
// follows from silence.
package link
