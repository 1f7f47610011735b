package state

import (
	"testing"

	"github.com/dynast-io/dynast/shared/config"
)

func TestChecksum(t *testing.T) {
	one, other := &config.Config{}, &config.Config{}
	other.Replication.QueueRequests++
	var s Sum
	for _, c := range []*config.Config{one, one, other, one} {
		if got := s.Of(c); got != Checksum(c) {
			t.Errorf("%x, want %x", got, Checksum(c))
		}
	}
	if Checksum(one) == Checksum(other) {
		t.Error("two configurations have one checksum")
	}
}
