package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/crash"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/shared/member/pki"
)

// A recovery makes a new cluster of this host alone. The leader of the host has recorded that it is
// wanted, and has restarted the engine. Every step here can be repeated; the record that it is done
// is the last one.

// prepareRecovery gives the new cluster an authority of its own, so that the hosts of the old one
// cannot talk to it, and drops the tokens of the old one. It gives up the recovery if a majority is
// back.
func (e *Engine) prepareRecovery() error {
	r := e.host.Recovery
	if r == nil || r.To == "" {
		return errors.New("engine: host.json asks for a recovery, and does not say of which cluster")
	}
	if lead := e.majorityIsBack(); lead != "" {
		e.log.Warn("the recovery is given up: a majority of the hosts answers again", "leader_seen_by", lead)
		return e.record(func(h *datadir.Host) { h.Recover, h.Recovery = false, nil })
	}
	e.log.Warn("forming a new cluster of this host alone", "old_cluster", r.From, "new_cluster", r.To)
	crash.At("recover-authority")
	fresh := e.dir.HostsPKI() + ".new"
	if !e.authority.Named(r.To) {
		if err := os.RemoveAll(fresh); err != nil {
			return err
		}
		if _, err := pki.LoadOrCreate(fresh, r.To); err != nil {
			return err
		}
		crash.At("recover-exchange")
		if err := exchange(fresh, e.dir.HostsPKI()); err != nil {
			return fmt.Errorf("engine: the new authority: %w", err)
		}
	}
	if err := errors.Join(os.RemoveAll(fresh), os.RemoveAll(movedAway(e.dir.HostsPKI()))); err != nil {
		return err
	}
	crash.At("recover-tokens")
	if err := e.tokens.Clear(); err != nil {
		return err
	}
	a, err := pki.Load(e.dir.HostsPKI())
	if err != nil {
		return err
	}
	e.others.close()
	e.authority, e.others = a, newOthers(e)
	// etcd finds its own address by this list, and its data has the rest.
	e.host.Members = map[string]string{e.host.Name: e.host.Address}
	crash.At("recover-etcd")
	return nil
}

// exchange lets two directories change their names at once. Where the file system cannot do that, the
// old one is moved away first; an engine that is killed in between finds only the fresh one.
func exchange(fresh, dir string) error {
	err := unix.Renameat2(unix.AT_FDCWD, fresh, unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		err = exchangeInSteps(fresh, dir)
	}
	if err != nil {
		return err
	}
	parent, err := os.Open(filepath.Dir(dir))
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}

// movedAway is where exchangeInSteps keeps the old directory until the fresh one has its place.
func movedAway(dir string) string { return dir + ".old" }

func exchangeInSteps(fresh, dir string) error {
	old := movedAway(dir)
	if err := os.RemoveAll(old); err != nil {
		return err
	}
	if err := os.Rename(dir, old); err != nil {
		return err
	}
	if err := os.Rename(fresh, dir); err != nil {
		return err
	}
	return os.RemoveAll(old)
}

// completeExchange does what an exchange without the help of the file system may have left.
func completeExchange(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Rename(dir+".new", dir)
}

// majorityIsBack returns the name of a host that knows a leader, if more than half of the hosts of the
// old cluster do; otherwise it returns nothing.
func (e *Engine) majorityIsBack() string {
	type answer struct {
		name  string
		leads bool
	}
	answers := make(chan answer, len(e.host.Members))
	for name, at := range e.host.Members {
		if name == e.host.Name {
			answers <- answer{}
			continue
		}
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
			defer cancel()
			var s hosts.Status
			err := e.others.client(at).Ask(ctx, hosts.PathStatus, nil, &s)
			answers <- answer{name, err == nil && s.LeaderID != ""}
		}()
	}
	n, last := 0, ""
	for range e.host.Members {
		if a := <-answers; a.leads {
			n, last = n+1, a.name
		}
	}
	if n < len(e.host.Members)/2 || n == 0 {
		return ""
	}
	return last
}

// recovered records that the new cluster exists. etcd has made its record of it in NewServer.
func (e *Engine) recovered() error {
	if !e.host.Recover {
		return nil
	}
	crash.At("recover-record")
	return e.record(func(h *datadir.Host) {
		h.Recover, h.Cluster = false, h.Recovery.To
		h.Members = map[string]string{h.Name: h.Address}
	})
}

// dropStrangers removes what the hosts of the lost cluster have left in the store of a new one: hosts
// that etcd has kept, and their alarms. Without that, an alarm of a host that is gone could refuse
// writes for ever.
func (e *Engine) dropStrangers(ctx context.Context) {
	if e.host.Recovery == nil || e.host.Recover {
		return
	}
	select {
	case <-e.server.ReadyNotify():
	case <-ctx.Done():
		return
	}
	here := map[uint64]bool{}
	for _, m := range e.server.Cluster().Members() {
		here[uint64(m.ID)] = true
	}
	for _, a := range e.server.Alarms() {
		if here[a.MemberID] {
			continue
		}
		try, cancel := context.WithTimeout(ctx, requestTimeout)
		_, err := e.server.Alarm(try, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: a.MemberID, Alarm: a.Alarm})
		cancel()
		if err != nil {
			e.log.Warn("cannot clear the alarm of a host that is gone; 'dynast ctl alarm disarm' does it", "alarm", a.Alarm.String(), "error", err)
			continue
		}
		e.log.Info("cleared the alarm of a host that is gone", "alarm", a.Alarm.String())
	}
}

// noteLeader notes when a leader of the hosts was last known.
func (e *Engine) noteLeader(ctx context.Context) {
	note := func() {
		if e.server.Leader() != 0 {
			e.leaderSeen.Store(time.Now().UnixNano())
		}
	}
	note()
	every(ctx, e.settings.Heartbeat, note)
}

// logWritten returns when the log of this host was last written.
func (e *Engine) logWritten() time.Time {
	files, err := filepath.Glob(filepath.Join(e.dir.Engine(), "member", "wal", "*.wal"))
	if err != nil {
		return time.Time{}
	}
	var last time.Time
	for _, f := range files {
		if info, err := os.Stat(f); err == nil && info.ModTime().After(last) {
			last = info.ModTime()
		}
	}
	return last
}
