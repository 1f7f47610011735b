package core

import "slices"

// commitIndex is the commit rule. An entry is committed once it is durable in the leader's own
// log (synced) and is in the logs of minSync followers that are in sync. If fewer than minSync
// followers are in sync, it must be in the logs of all of them. acks holds, for each follower
// in sync, the index that its log is known to reach. The function reorders acks.
func commitIndex(synced uint64, acks []uint64, minSync int) uint64 {
	need := min(minSync, len(acks))
	if need == 0 {
		return synced
	}
	slices.Sort(acks)
	return min(synced, acks[len(acks)-need])
}
