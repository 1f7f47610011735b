package core

import "slices"

// Claims is the content of claims.json: the epochs that were ever begun. An heir durably claims
// an epoch before it writes the first entry of that epoch. Only the holder of cluster.lock
// claims epochs. Therefore no two processes ever write entries of the same epoch, and the
// greater of two epochs was always begun later.
//
// Raft has its term and vote for this, and a lock alone does not replace them. The lock decides
// which process may lead. It does not tell what a dead heir has left in a log that cannot be
// read at the moment.
type Claims struct {
	// Epoch is the greatest epoch that was claimed, or 0 if none was.
	Epoch uint64
	// Abandoned lists the claimed epochs whose heir died before succession.json named it,
	// oldest first. No write was ever acknowledged in such an epoch.
	Abandoned []uint64
}

// maxAbandoned is the maximum length of Claims.Abandoned. The oldest epochs are dropped: the
// slots that held their entries were overwritten long ago.
const maxAbandoned = 256

// next returns the claims after another epoch is claimed. The previous claimed epoch becomes
// abandoned, unless it is the one that succession.json names.
func (c Claims) next(epoch uint64, named *Succession) Claims {
	n := Claims{Epoch: epoch, Abandoned: slices.Clone(c.Abandoned)}
	if named != nil && c.Epoch > named.Epoch {
		n.Abandoned = append(n.Abandoned, c.Epoch)
	}
	if over := len(n.Abandoned) - maxAbandoned; over > 0 {
		n.Abandoned = n.Abandoned[over:]
	}
	return n
}

// Completed reports whether a leader of this epoch may have acknowledged a write. named is the
// epoch in succession.json, or 0 if that is unknown. Logs are compared by their last entry of
// such an epoch. Entries that a dead heir wrote after it do not make a log more complete.
func (c Claims) Completed(epoch, named uint64) bool {
	return (named == 0 || epoch <= named) && !slices.Contains(c.Abandoned, epoch)
}
