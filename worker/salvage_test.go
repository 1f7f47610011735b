package worker

import (
	"errors"
	"testing"

	"github.com/dynast-io/dynast/shared/entry"
)

func TestGreatestEpochOfAllLogs(t *testing.T) {
	finds := []find{
		{slot: 1, last: entry.Position{Epoch: 3, Index: 90}}, {slot: 2, last: entry.Position{Epoch: 5, Index: 7}}, {slot: 3, err: errors.New("it has no log")},
	}
	if got := greatestEpoch(finds); got != 5 {
		t.Errorf("greatest epoch %d", got)
	}
	if got := greatestEpoch(nil); got != 0 {
		t.Errorf("greatest epoch of no log: %d", got)
	}
}
