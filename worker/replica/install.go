package replica

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	replog "github.com/dynast-io/dynast/shared/replica/log"
	"github.com/dynast-io/dynast/shared/replica/store"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/entry"
)

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// incoming is the path of a database that is being received.
func incoming(slot datadir.Slot) string { return filepath.Join(slot.Path(), "incoming.db") }

// receivedPath is the path of a completely received database that waits to be installed.
func receivedPath(slot datadir.Slot, turn uint64) string {
	return filepath.Join(slot.Path(), fmt.Sprintf("received-%d.db", turn))
}

// clearReceived removes databases that an earlier process received and did not install.
func clearReceived(slot datadir.Slot) error {
	files, err := os.ReadDir(slot.Path())
	if err != nil {
		return err
	}
	errs := []error{os.RemoveAll(incoming(slot))}
	for _, f := range files {
		if strings.HasPrefix(f.Name(), "received-") {
			errs = append(errs, os.RemoveAll(filepath.Join(slot.Path(), f.Name())))
		}
	}
	return errors.Join(errs...)
}

// install replaces the copy by a completely received database that has applied the position
// at. A crash between the steps leaves a log that does not fit the database. The next open
// throws such a copy away.
func (r *holder) install(at entry.Position, path string) error {
	defer r.exclude()()
	c := &r.cur
	slot := c.Slot
	if err := c.closeData(); err != nil {
		return fmt.Errorf("install snapshot: %w", err)
	}
	if err := syncFile(path); err != nil {
		return fmt.Errorf("install snapshot: %w", err)
	}
	if err := os.Rename(path, store.Path(slot.DBDir())); err != nil {
		return fmt.Errorf("install snapshot: %w", err)
	}
	if err := os.RemoveAll(slot.LogDir()); err != nil {
		return fmt.Errorf("install snapshot: %w", err)
	}
	if err := r.openBoth(c); err != nil {
		return fmt.Errorf("install snapshot: %w", err)
	}
	if got := c.Store.Applied(); got != at {
		return fmt.Errorf("install snapshot: it is at %s, but the leader announced %s", got, at)
	}
	return nil
}

// RoomForSnapshot returns an error if the disk has no room for a database of this size beside
// the old one. A quarter of the disk reserve must stay free.
func (r *Replica) RoomForSnapshot(bytes int64) error {
	need := uint64(max(bytes, 0)) + uint64(r.Settings.Now().Store.DiskReserve)/4
	free, err := proc.FreeBytes(r.Settings.Start.DataDir)
	if err == nil && free < need {
		err = fmt.Errorf("%w: a snapshot needs %d bytes, %d are free", replog.ErrNoRoom, need, free)
	}
	return err
}

// Install replaces the copy by the received snapshot as soon as the disk has room. The writer's
// goroutine does it, so that the calling goroutine keeps reading the leader's stream. The
// leader sends no entries before the new copy is acknowledged. A later snapshot or a takeover
// supersedes one that waits.
func (r *Replica) Install(at entry.Position) error {
	turn := r.installs.Add(1)
	slot := r.Current().Slot
	// The next snapshot is received at the old path.
	path := receivedPath(slot, turn)
	if err := os.Rename(incoming(slot), path); err != nil {
		return err
	}
	mayWait := func() error {
		if r.installs.Load() != turn {
			return errSuperseded
		}
		return r.roomForLog()
	}
	go r.Guarded(func() {
		if err := r.Space.await("a snapshot", mayWait); err != nil {
			_ = os.Remove(path)
			return
		}
		r.writer.do(func() { r.installNow(at, path, turn) })
	})
	return nil
}

// errSuperseded means that a waiting snapshot is not needed any more.
var errSuperseded = errors.New("superseded")

// installNow is the part of Install that runs on the writer's goroutine.
func (r *Replica) installNow(at entry.Position, path string, turn uint64) {
	if r.installs.Load() != turn {
		_ = os.Remove(path)
		return
	}
	switch err := r.install(at, path); {
	case err == nil:
		r.Post(core.Installed{Last: at})
	case !r.diskFull(err):
		r.StoreFailed(err)
	}
}

// roomForLog returns an error if the disk has no room for a new log. It is called before the
// old log is removed.
func (r *Replica) roomForLog() error {
	const need = 2*replog.DefaultSegmentBytes + 1<<20
	free, err := proc.FreeBytes(r.Settings.Start.DataDir)
	if err == nil && free < need {
		return fmt.Errorf("%w: a new log needs %d bytes, %d are free", replog.ErrNoRoom, need, free)
	}
	return nil
}
