package core

import "slices"

// commitIndex is the commit rule: an entry is acknowledged once it is in the
// leader's log on disk (synced) and in the logs of minSync of the followers
// that are in sync, or of all of these where there are fewer. acks holds how
// far the log of each follower in sync is known to reach; it is reordered.
func commitIndex(synced uint64, acks []uint64, minSync int) uint64 {
	need := min(minSync, len(acks))
	if need == 0 {
		return synced
	}
	slices.Sort(acks)
	return min(synced, acks[len(acks)-need])
}
