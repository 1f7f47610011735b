package worker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/dynast-io/dynast/shared/host/tick"
	"github.com/dynast-io/dynast/shared/observe/logging"
	replog "github.com/dynast-io/dynast/shared/replica/log"
	"github.com/dynast-io/dynast/shared/rules/core"
)

const (
	// spaceInterval is how often the leader checks the free disk space.
	spaceInterval = 250 * time.Millisecond
	// syncInterval is how often a follower fsyncs its log in the background, so that a
	// takeover has little left to sync.
	syncInterval = time.Second
	// compactInterval is how often old log segments are removed.
	compactInterval = time.Second
	// sweepInterval is how often the leader removes the sockets of dead processes.
	sweepInterval = 2 * time.Second
	// slack is shorter than any interval and longer than a tick is ever late.
	slack = spaceInterval / 2
)

// housekeeping runs the periodic work that is not urgent. An idle member writes nothing: each
// step first checks whether there is something to do.
func (m *Member) housekeeping() {
	every := syncInterval
	timer := time.NewTimer(tick.Until(every))
	defer timer.Stop()
	var lastCompact, lastSweep time.Time
	tuner := newGCTuner()
	var idle idleDetector
	leads := m.Leads
	for {
		select {
		case <-timer.C:
		case <-leads:
			every = spaceInterval
			leads = nil // a closed channel would be ready every time
		case <-m.Ended():
			return
		}
		timer.Reset(tick.Until(every))
		now := time.Now()
		if idle.due(now, m.replica.Last().Index) {
			releaseMemory()
		}
		if m.Leading.Load() {
			m.replica.Space.Look()
			m.files.Look(now)
			m.links.LookAtStarts(now)
			m.alarm()
			m.operators.NoteUsage(now, m.pids())
		} else {
			m.replica.Sync()
			m.replica.ReadAhead()
			m.replica.Memory.Look(len(m.Roster().Members))
			m.replica.Memory.Relieve()
		}
		if m.Leading.Load() && now.Sub(lastSweep) >= sweepInterval-slack {
			lastSweep = now
			m.sweepSockets()
			m.pruneLogs()
			m.takeover.surveyOwners()
		}
		if now.Sub(lastCompact) >= compactInterval-slack {
			lastCompact = now
			if err := m.replica.Compact(); err != nil && !errors.Is(err, replog.ErrNoRoom) {
				m.Fatal(core.ExitError, err)
				return
			}
			if m.Leading.Load() {
				tuner.adjust()
				if err := m.Dir.ReserveSuccession(); err != nil {
					m.Log.Debug("cannot reserve room for succession.json: a takeover on a full disk would have to wait", "error", err)
				}
			}
		}
	}
}

// pids returns the process IDs of all members.
func (m *Member) pids() []int {
	var out []int
	for _, member := range m.Roster().Members {
		out = append(out, member.PID)
	}
	return out
}

// sweepSockets removes the control sockets of dead processes. A leader removes the sockets of
// its followers when they die. But its own socket, from when it was a follower, stays behind
// when it dies. A process that is just starting is in no roster yet. Its socket directory is
// kept because the directory is younger than the longest start.
func (m *Member) sweepSockets() {
	known := map[string]bool{filepath.Dir(m.control.Socket()): true}
	for _, f := range m.Roster().Members {
		known[filepath.Dir(f.Plugin)] = true
	}
	err := m.Dir.SweepSockets(func(path string) bool {
		info, err := os.Stat(path)
		if err != nil || known[path] {
			return true
		}
		if info.IsDir() {
			return time.Since(info.ModTime()) < m.Settings.Start.Spawn.Timeout+sweepInterval
		}
		return socketAlive(path)
	})
	if err != nil {
		m.Log.Debug("cannot remove the sockets of dead processes", "error", err)
	}
}

// leaveNoSockets removes this process's control socket when it exits in order. If no follower
// is left, it also removes the sockets that followers left behind.
func (m *Member) leaveNoSockets() {
	own := m.control.Socket()
	alone := len(m.Roster().Members) <= 1
	err := m.Dir.SweepSockets(func(path string) bool {
		switch {
		case path == own || path == filepath.Dir(own):
			return false
		case !alone:
			return true // some sockets may belong to processes that are just starting
		}
		return socketAlive(path)
	})
	if err == nil && alone {
		err = m.Dir.LeaveRuntimeDir()
	}
	if err != nil {
		m.Log.Debug("cannot remove sockets", "error", err)
	}
}

// alarm keeps etcd's NOSPACE alarm in line with the disk and memory state, whichever leader
// raised it: that leader may be dead when there is room again. Only the alarm for the disk is
// changed, not the one for the quota.
func (m *Member) alarm() {
	disk, memory := m.replica.Full()
	full := disk || memory
	if full == m.diskAlarm() {
		return
	}
	action := pb.AlarmRequest_DEACTIVATE
	if full {
		action = pb.AlarmRequest_ACTIVATE
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := m.replica.Proposals.Propose(ctx, &pb.InternalRaftRequest{
		Header: &pb.RequestHeader{ID: uint64(time.Now().UnixNano())},
		Alarm:  &pb.AlarmRequest{Action: action, MemberID: diskAlarmMember, Alarm: pb.AlarmType_NOSPACE},
	})
	if err != nil {
		m.Log.Warn("cannot set the NOSPACE alarm", "active", full, "error", err)
	}
}

// diskAlarm reports whether the alarm for the disk is active.
func (m *Member) diskAlarm() bool {
	for _, a := range m.replica.Current().Store.Alarms().Get(pb.AlarmType_NOSPACE) {
		if a.MemberID == diskAlarmMember {
			return true
		}
	}
	return false
}

// diskAlarmMember is the member ID in the NOSPACE alarm for the disk. It stands for no
// particular member, so every leader uses the same one.
const diskAlarmMember = 1

// keptLogs is how many dead members keep their log files.
const keptLogs = 16

// pruneLogs removes the log files of members that died long ago. It looks only after the roster
// has changed.
func (m *Member) pruneLogs() {
	dir, r := m.Settings.Start.LogDirectory(), m.Roster()
	if dir == "" || r == m.history.pruned {
		return
	}
	m.history.pruned = r
	living := []string{m.Self.Address.String()}
	for _, x := range r.Members {
		living = append(living, x.Address.String())
	}
	m.Note(logging.Prune(dir, living, keptLogs))
}
