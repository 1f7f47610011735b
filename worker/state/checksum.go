package state

import (
	"hash/fnv"

	"github.com/dynast-io/dynast/shared/config"
)

// Checksum distinguishes configurations. It ignores the log settings and the member host,
// because a member that an operator started has its own, and the services, which only the leader
// needs.
func Checksum(c *config.Config) uint64 {
	d := *c
	d.Log, d.Member.Host, d.Services = config.Log{}, "", nil
	h := fnv.New64a()
	_, _ = h.Write(d.Encode())
	return h.Sum64()
}

// Sum caches the checksum of one configuration. It is not safe for concurrent use.
type Sum struct {
	last *config.Config
	sum  uint64
}

// Of returns the checksum of a configuration, which must not change.
func (s *Sum) Of(c *config.Config) uint64 {
	if c != s.last {
		s.last, s.sum = c, Checksum(c)
	}
	return s.sum
}
