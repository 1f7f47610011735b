package worker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/dynast-io/dynast/shared/core"
	replog "github.com/dynast-io/dynast/shared/log"
	"github.com/dynast-io/dynast/shared/tick"
)

const (
	// spaceInterval is how often the leader looks at the free disk space.
	spaceInterval = 250 * time.Millisecond
	// syncInterval is how often a follower makes its log durable in the
	// background, so that a takeover has little left to sync.
	syncInterval = time.Second
	// compactInterval is how often old log segments are let go.
	compactInterval = time.Second
	// sweepInterval is how often the leader looks for sockets of the dead.
	sweepInterval = 2 * time.Second
	// slack is less than an interval, and more than a tick is ever late.
	slack = spaceInterval / 2
)

// housekeeping is what is done now and then and is not urgent. An idle member
// writes nothing: each step looks first whether there is something to do.
func (m *Member) housekeeping() {
	every := syncInterval
	timer := time.NewTimer(tick.Until(every))
	defer timer.Stop()
	var lastCompact, lastSweep time.Time
	toil, keep, collector := newToil(m), newKept(m), newCollector()
	var rest resting
	leads := m.leads
	for {
		select {
		case <-timer.C:
		case <-leads:
			every = spaceInterval
			leads = nil // closed for ever
		case <-m.ended:
			return
		}
		timer.Reset(tick.Until(every))
		now := time.Now()
		if rest.due(now, m.replica.last().Index) {
			giveBack()
		}
		if m.leading.Load() {
			m.space.look()
			toil.look(now)
			m.alarm()
			m.cpu.note(now, m.pids())
		} else {
			m.syncer.sync()
		}
		if m.leading.Load() && now.Sub(lastSweep) >= sweepInterval-slack {
			lastSweep = now
			m.sweepSockets()
		}
		if now.Sub(lastCompact) >= compactInterval-slack {
			lastCompact = now
			if err := m.replica.compact(keep.from(), keep.spare); err != nil && !errors.Is(err, replog.ErrNoRoom) {
				m.fatal(core.ExitError, err)
				return
			}
			if m.leading.Load() {
				collector.lead()
				if err := m.dir.ReserveSuccession(); err != nil {
					m.logger.Debug("a takeover on a full disk would have to wait", "error", err)
				}
			}
		}
	}
}

// pids are those of all members.
func (m *Member) pids() []int {
	var out []int
	for _, member := range m.roster().Members {
		out = append(out, member.PID)
	}
	return out
}

// sweepSockets removes the control sockets of the dead. A leader removes those
// of its followers; the one that it had itself, when it was a follower, is left by its
// own death. A process that is just starting is in no roster yet: it is known by the
// age of its directory, which is no older than a start may take.
func (m *Member) sweepSockets() {
	known := map[string]bool{filepath.Dir(m.control.socket()): true}
	for _, f := range m.roster().Members {
		known[filepath.Dir(f.Plugin)] = true
	}
	err := m.dir.SweepSockets(func(path string) bool {
		info, err := os.Stat(path)
		if err != nil || known[path] {
			return true
		}
		if info.IsDir() {
			return time.Since(info.ModTime()) < m.cfg.Spawn.Timeout+sweepInterval
		}
		return socketAlive(path)
	})
	if err != nil {
		m.logger.Debug("sockets of the dead cannot be removed", "error", err)
	}
}

// leaveNoSockets removes the own control socket at an orderly end and, where
// no follower is left, what those left behind.
func (m *Member) leaveNoSockets() {
	own := m.control.socket()
	alone := len(m.roster().Members) <= 1
	err := m.dir.SweepSockets(func(path string) bool {
		switch {
		case path == own || path == filepath.Dir(own):
			return false
		case !alone:
			return true // some may be just starting
		}
		return socketAlive(path)
	})
	if err != nil {
		m.logger.Debug("sockets cannot be removed", "error", err)
	}
}

// alarm keeps etcd's NOSPACE alarm equal to the state of the disk, whoever
// raised it: the leader that did may be dead when there is room again. Only the
// alarm for the disk is touched, not the one for the quota.
func (m *Member) alarm() {
	full := m.space.full.Load()
	if full == m.diskAlarm() {
		return
	}
	action := pb.AlarmRequest_DEACTIVATE
	if full {
		action = pb.AlarmRequest_ACTIVATE
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := m.proposals.Propose(ctx, &pb.InternalRaftRequest{
		Header: &pb.RequestHeader{ID: uint64(time.Now().UnixNano())},
		Alarm:  &pb.AlarmRequest{Action: action, MemberID: diskAlarmMember, Alarm: pb.AlarmType_NOSPACE},
	})
	if err != nil {
		m.logger.Warn("the NOSPACE alarm cannot be set", "active", full, "error", err)
	}
}

// diskAlarm reports whether the alarm for the disk is active.
func (m *Member) diskAlarm() bool {
	for _, a := range m.replica.current().store.Alarms().Get(pb.AlarmType_NOSPACE) {
		if a.MemberID == diskAlarmMember {
			return true
		}
	}
	return false
}

// diskAlarmMember marks the NOSPACE alarm as one for the disk, which belongs
// to no member: it is the same for whoever leads.
const diskAlarmMember = 1
