package replica

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/observe/events"
	replog "github.com/dynast-io/dynast/shared/replica/log"
	"github.com/dynast-io/dynast/worker/state"
)

// Space watches the free space on the disk of the data directory. A full disk does not end the
// process: when less than the reserve is free, new writes are refused before they change
// anything, and the writes that were already accepted use the reserve.
type Space struct {
	*state.Shared
	memory *Memory
	// looking is locked while a goroutine looks at the memory.
	looking sync.Mutex
	// full is true while less than the reserve is free.
	full atomic.Bool
}

// guard refuses requests that need room when there is none. Alarms are always accepted. Deletes
// and compactions are accepted down to a quarter of the reserve, because they make room.
func (s *Space) guard(r *pb.InternalRaftRequest) error {
	if stores(r) {
		if s.memory.due(time.Now()) && s.looking.TryLock() {
			s.lookAtMemory()
			s.looking.Unlock()
		}
		if s.memory.tight.Load() {
			return errNoMemory
		}
	}
	if !s.full.Load() || r.Alarm != nil {
		return nil
	}
	if !stores(r) {
		if free, err := proc.FreeBytes(s.Settings.Start.DataDir); err == nil && free >= uint64(s.Settings.Now().Store.DiskReserve)/4 {
			return nil
		}
	}
	return rpctypes.ErrGRPCNoSpace
}

// stores reports whether a request adds data. The other requests make room, or are needed for
// that: a client that deletes keys may have to authenticate first.
func stores(r *pb.InternalRaftRequest) bool {
	return r.DeleteRange == nil && r.Compaction == nil && r.LeaseRevoke == nil && r.LeaseCheckpoint == nil && r.Authenticate == nil && r.Alarm == nil
}

// ranOut records that a write found no room. The disk has become full since the last Look.
func (s *Space) ranOut(err error) {
	if !s.full.Swap(true) {
		s.Log.Error("disk full: writes are refused until there is room", "error", err, "path", s.Settings.Start.DataDir)
		s.Tell(events.DiskFull, err.Error())
	}
}

// lookAtMemory makes writes be refused before the kernel would have to kill a member. The caller
// has locked looking.
func (s *Space) lookAtMemory() {
	m := s.memory
	used, changed := m.Look(len(s.Roster().Members))
	switch {
	case !changed:
	case m.tight.Load():
		s.Log.Error("memory limit nearly reached: writes are refused until memory is free",
			"used_bytes", used, "limit_bytes", m.group.LimitBytes, "group", m.group.Path)
		s.Tell(events.MemoryTight, fmt.Sprintf("%d of %d bytes are in use", used, m.group.LimitBytes))
	default:
		s.Log.Info("memory is free again: writes are accepted", "used_bytes", used, "limit_bytes", m.group.LimitBytes)
		s.Tell(events.MemoryEased, fmt.Sprintf("%d of %d bytes are in use", used, m.group.LimitBytes))
	}
}

// Look reads the free space. Hysteresis keeps the alarm from going on and off repeatedly.
func (s *Space) Look() {
	s.looking.Lock()
	s.lookAtMemory()
	s.looking.Unlock()
	s.memory.Relieve()
	free, err := proc.FreeBytes(s.Settings.Start.DataDir)
	if err != nil {
		s.Log.Warn("cannot read the free disk space", "error", err)
		return
	}
	reserve := uint64(s.Settings.Now().Store.DiskReserve)
	switch was := s.full.Load(); {
	case !was && free < reserve:
		s.full.Store(true)
		s.Log.Error("disk full: writes are refused until there is room", "free_bytes", free, "reserve_bytes", reserve, "path", s.Settings.Start.DataDir)
		s.Tell(events.DiskFull, fmt.Sprintf("%d bytes are free, %d are kept in reserve", free, reserve))
	case was && free >= reserve+reserve/8:
		s.full.Store(false)
		s.Log.Info("the disk has room again: writes are accepted", "free_bytes", free)
		s.Tell(events.DiskFreed, fmt.Sprintf("%d bytes are free", free))
	}
}

// await repeats a step until the disk has room for it. In a takeover this process holds the
// cluster lock, so no other process could do the step instead.
func (s *Space) await(what string, step func() error) error {
	for told := false; ; told = true {
		err := step()
		if !errors.Is(err, replog.ErrNoRoom) {
			return err
		}
		if !told {
			s.Log.Error("disk full: "+what+" waits for room", "error", err)
		}
		select {
		case <-time.After(roomPoll):
		case <-s.Ended():
			return err
		}
	}
}

// Full reports whether writes are refused because the disk is full or memory is scarce.
func (s *Space) Full() (disk, memory bool) { return s.full.Load(), s.memory.tight.Load() }
