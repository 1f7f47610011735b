package worker

import (
	"fmt"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/dynast-io/dynast/shared/events"
	"github.com/dynast-io/dynast/shared/proc"
)

// space watches the room on the disk of the data directory. A full disk is no
// reason to die: below the reserve writes are refused before they touch
// anything, and what is on its way still finds room.
type space struct {
	m *Member
	// full: less than the reserve is free.
	full atomic.Bool
}

func newSpace(m *Member) *space { return &space{m: m} }

// guard refuses what would need room when there is none. Deletes,
// compactions and alarms go on, down to a quarter of the reserve: they are the way out.
func (s *space) guard(r *pb.InternalRaftRequest) error {
	if !s.full.Load() || r.Alarm != nil {
		return nil
	}
	// Who deletes may have to log in for it.
	if r.DeleteRange != nil || r.Compaction != nil || r.LeaseRevoke != nil || r.LeaseCheckpoint != nil || r.Authenticate != nil {
		if free, err := proc.FreeBytes(s.m.cfg.DataDir); err == nil && free >= uint64(s.m.config().Store.DiskReserve)/4 {
			return nil
		}
	}
	return rpctypes.ErrGRPCNoSpace
}

// ranOut notes that there was no room for a write: the disk filled up since
// the last look.
func (s *space) ranOut(err error) {
	if !s.full.Swap(true) {
		s.m.logger.Error("disk full: writes are refused until there is room", "error", err, "path", s.m.cfg.DataDir)
		s.m.history.tell(events.DiskFull, err.Error())
	}
}

// look reads the free space; with some hysteresis, so that the alarm does not
// flutter.
func (s *space) look() {
	free, err := proc.FreeBytes(s.m.cfg.DataDir)
	if err != nil {
		s.m.logger.Warn("free disk space cannot be read", "error", err)
		return
	}
	reserve := uint64(s.m.config().Store.DiskReserve)
	switch was := s.full.Load(); {
	case !was && free < reserve:
		s.full.Store(true)
		s.m.logger.Error("disk full: writes are refused until there is room", "free_bytes", free, "reserve_bytes", reserve, "path", s.m.cfg.DataDir)
		s.m.history.tell(events.DiskFull, fmt.Sprintf("%d bytes are free, %d are kept in reserve", free, reserve))
	case was && free >= reserve+reserve/8:
		s.full.Store(false)
		s.m.logger.Info("the disk has room again: writes are accepted", "free_bytes", free)
		s.m.history.tell(events.DiskFreed, fmt.Sprintf("%d bytes are free", free))
	}
}
