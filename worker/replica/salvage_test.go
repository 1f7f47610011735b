package replica

import (
	"errors"
	"testing"

	"go.uber.org/zap"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	replog "github.com/dynast-io/dynast/shared/replica/log"
	"github.com/dynast-io/dynast/shared/rules/entry"
	"github.com/dynast-io/dynast/worker/state/statetest"
)

// inDirectory returns a replica without a slot.
func inDirectory(t *testing.T, dir *datadir.Dir) *Replica {
	sh, _ := statetest.New(t, &config.Config{}, false)
	sh.Dir = dir
	return assemble(sh, &holder{Shared: sh, zap: zap.NewNop(), memory: &Memory{}}, &Memory{})
}

func TestGreatestEpochOfAllLogs(t *testing.T) {
	logs := []slotLog{
		{slot: 1, last: entry.Position{Epoch: 3, Index: 90}}, {slot: 2, last: entry.Position{Epoch: 5, Index: 7}}, {slot: 3, err: errors.New("it has no log")},
	}
	if got := greatestEpoch(logs); got != 5 {
		t.Errorf("greatest epoch %d", got)
	}
	if got := greatestEpoch(nil); got != 0 {
		t.Errorf("greatest epoch of no log: %d", got)
	}
}

// If a living member owns the most complete copy, another member must not lead with a lesser one.
func TestBestCopyOfLivingMemberIsNotLost(t *testing.T) {
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
	r := inDirectory(t, dir)
	defer r.leave()
	lock, err := proc.TryLock(dir.Slot(1).Lock())
	if err != nil {
		t.Fatal(err)
	}
	logs, err := r.survey()
	if err != nil {
		t.Fatal(err)
	}
	if own, better := r.ownBest(logs); own != 0 || better != 1 {
		t.Fatalf("slot %d becomes the own one, better is slot %d: %s", own, better, list(logs))
	}
	// That member is gone, so its copy can be opened.
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	if logs, err = r.survey(); err != nil {
		t.Fatal(err)
	}
	if own, better := r.ownBest(logs); own != 1 || better != 0 {
		t.Fatalf("slot %d becomes the own one, better is slot %d: %s", own, better, list(logs))
	}
}

// An heir with a less complete log than another member began an epoch in it and died. The first
// entry of that epoch does not make its log more complete.
func TestLogsAreRankedByCompletedEpochs(t *testing.T) {
	dir, err := datadir.Open(t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	for slot, epochs := range map[int][]uint64{1: {1, 1, 5}, 2: {1, 1, 1, 1}, 3: {1, 1, 1, 7}} {
		if err := dir.Slot(slot).Make(); err != nil {
			t.Fatal(err)
		}
		log, err := replog.Create(replog.Options{Dir: dir.Slot(slot).LogDir()}, entry.Position{})
		if err != nil {
			t.Fatal(err)
		}
		for i, epoch := range epochs {
			if err := log.Append([]entry.Entry{{Index: uint64(i + 1), Epoch: epoch}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := dir.WriteSuccession(datadir.Succession{Epoch: 6, Slot: 4, BootID: "b", Leader: datadir.Leader{Address: "127.0.0.1:1", PID: 1}}); err != nil {
		t.Fatal(err)
	}
	if err := dir.WriteClaims(datadir.Claims{Epoch: 7, Abandoned: []uint64{5}}); err != nil {
		t.Fatal(err)
	}
	r := inDirectory(t, dir)
	logs, err := r.survey()
	if err != nil {
		t.Fatal(err)
	}
	if logs[0].slot != 2 || logs[1].slot != 3 || logs[2].slot != 1 || greatestEpoch(logs) != 7 {
		t.Fatal(list(logs))
	}
}
