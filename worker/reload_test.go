package worker

import (
	"testing"

	"github.com/dynast-io/dynast/shared/config"
)

func TestConfigSum(t *testing.T) {
	one, other := &config.Config{}, &config.Config{}
	other.Replication.QueueRequests++
	var s configSum
	for _, c := range []*config.Config{one, one, other, one} {
		if got := s.of(c); got != checksum(c) {
			t.Errorf("%x, want %x", got, checksum(c))
		}
	}
	if checksum(one) == checksum(other) {
		t.Error("two configurations have one checksum")
	}
}
