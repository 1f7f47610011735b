package worker

import (
	"errors"
	"testing"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/zap"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/datadir"
	"github.com/dynast-io/dynast/shared/entry"
	replog "github.com/dynast-io/dynast/shared/log"
	"github.com/dynast-io/dynast/shared/proc"
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

// TestTheBestCopyOfALivingMemberIsNotGivenUp: who would have to make do with a
// lesser copy leaves it to the member that owns the best one.
func TestTheBestCopyOfALivingMemberIsNotGivenUp(t *testing.T) {
	dir, err := datadir.Open(t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	for slot, entries := range map[int]int{1: 5, 2: 3} {
		if err := dir.Slot(slot).Make(); err != nil {
			t.Fatal(err)
		}
		log, err := replog.Create(replog.Options{Dir: dir.Slot(slot).LogDir()}, entry.Position{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range entries {
			if err := log.Append([]entry.Entry{{Index: uint64(i + 1), Epoch: 1}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
	}
	m := &Member{
		dir: dir, logger: hclog.NewNullLogger(), self: proc.Self(), address: memberAt(7001).Address,
		replica: &replica{dir: dir, cfg: &config.Config{}, zap: zap.NewNop(), fatal: func(err error) { t.Error(err) }},
	}
	defer m.replica.leave()
	lock, err := proc.TryLock(dir.Slot(1).Lock())
	if err != nil {
		t.Fatal(err)
	}
	finds, err := m.survey()
	if err != nil {
		t.Fatal(err)
	}
	if own, better := m.ownBest(finds); own != 0 || better != 1 {
		t.Fatalf("slot %d becomes the own one, better is slot %d: %s", own, better, list(finds))
	}
	// It is gone: then its copy is there to be opened.
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	if finds, err = m.survey(); err != nil {
		t.Fatal(err)
	}
	if own, better := m.ownBest(finds); own != 1 || better != 0 {
		t.Fatalf("slot %d becomes the own one, better is slot %d: %s", own, better, list(finds))
	}
}
