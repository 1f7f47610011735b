package datadir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// A host that goes back from a cluster of hosts to a single host's store gets a new store in
// hosts/back/data while its engine is stopped. When that is complete, back/left.json is written. Then
// TakeBack puts it in the place of the members' empty store, copies left.json to hosts/, and removes
// host.json. What it replaces goes to hosts/old.

// Back is the directory in which the store is prepared. Nothing in it counts before WriteBack.
func (d *Dir) Back() string { return filepath.Join(d.Hosts(), "back") }

// BackData is the new store, in the layout of a data directory.
func (d *Dir) BackData() string { return filepath.Join(d.Back(), "data") }

func (d *Dir) old() string      { return filepath.Join(d.Hosts(), "old") }
func (d *Dir) leftPath() string { return filepath.Join(d.Hosts(), leftName) }

const leftName = "left.json"

// WriteBack records durably that the store in BackData is complete.
func (d *Dir) WriteBack(l Left) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	l.Schema = schema
	if err := writeState(filepath.Join(d.Back(), leftName), &l); err != nil {
		return fmt.Errorf("record the new store: %w", err)
	}
	return nil
}

// DropBack removes what WriteBack and an interrupted TakeBack left. The record goes first, so that no
// half of it is ever taken for the whole.
func (d *Dir) DropBack() error {
	err := ignoreMissing(os.Remove(filepath.Join(d.Back(), leftName)))
	if err == nil {
		err = ignoreMissing(syncDir(d.Back()))
	}
	if err == nil {
		err = errors.Join(os.RemoveAll(d.Back()), os.RemoveAll(d.old()), ignoreMissing(os.Remove(d.leftPath())))
	}
	if err != nil {
		return fmt.Errorf("remove the new store: %w", err)
	}
	return nil
}

// ReadLeft reads left.json. The error is os.ErrNotExist if this host never left a cluster.
func (d *Dir) ReadLeft() (Left, error) {
	var l Left
	if err := readState(d.leftPath(), &l); err != nil {
		return Left{}, fmt.Errorf("read the record of leaving: %w", err)
	}
	return l, nil
}

// WriteLeft replaces left.json durably.
func (d *Dir) WriteLeft(l Left) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	l.Schema = schema
	if err := writeState(d.leftPath(), &l); err != nil {
		return fmt.Errorf("write the record of leaving: %w", err)
	}
	return nil
}

// replaced are the files of a single host's store, in the order in which TakeBack replaces them.
var replaced = []string{slotsName, "cluster.json", "succession.json", "claims.json"}

// TakeBack puts the store in BackData into its place if it is complete. It returns false if there is
// none. The caller holds cluster.lock, and no process has a slot open. If it is interrupted, the next
// call goes on. step is called before each step, with its name.
func (d *Dir) TakeBack(step func(name string)) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	host, err := d.ReadHost()
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var left Left
	switch err := readState(filepath.Join(d.Back(), leftName), &left); {
	case errors.Is(err, os.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("take the new store: %w", err)
	}
	if !host.Halted {
		return false, nil // the engine may have run since the copy
	}
	if err := d.takeBack(left, step); err != nil {
		return false, fmt.Errorf("take the new store: %w", err)
	}
	return true, nil
}

func (d *Dir) takeBack(left Left, step func(name string)) error {
	if err := makeDurably(d.old()); err != nil {
		return err
	}
	// When leases end is known by the old store only.
	if err := ignoreMissing(os.Rename(d.LeaseDeadlines(), filepath.Join(d.old(), filepath.Base(d.LeaseDeadlines())))); err != nil {
		return err
	}
	for _, name := range replaced {
		from, to, old := filepath.Join(d.BackData(), name), filepath.Join(d.path, name), filepath.Join(d.old(), name)
		if _, err := os.Lstat(from); errors.Is(err, os.ErrNotExist) {
			continue // it has its place already
		} else if err != nil {
			return err
		}
		step("old-" + name)
		if _, err := os.Lstat(old); err == nil {
			// The old one is there. What has appeared in its place since is an empty directory that
			// Open makes.
			err = os.RemoveAll(to)
			if err != nil {
				return err
			}
		} else if err := ignoreMissing(os.Rename(to, old)); err != nil {
			return err
		}
		if err := errors.Join(syncDir(d.old()), syncDir(d.path)); err != nil {
			return err
		}
		step("new-" + name)
		if err := os.Rename(from, to); err != nil {
			return err
		}
		if err := errors.Join(syncDir(d.path), syncDir(d.BackData())); err != nil {
			return err
		}
	}
	// While host.json exists, left.json means nothing.
	step("record")
	left.Schema = schema
	if err := writeState(d.leftPath(), &left); err != nil {
		return err
	}
	step("switch")
	if err := os.Remove(d.hostPath()); err != nil {
		return err
	}
	return syncDir(d.Hosts())
}

// DropHosts removes what belonged to the cluster that this host has left, except left.json, or what an
// interrupted change to a cluster left.
func (d *Dir) DropHosts() error {
	err := d.clearHosts(leftName, beginningName)
	if err == nil {
		// It says that the rest is worth nothing, so it goes last.
		err = ignoreMissing(os.Remove(d.beginningPath()))
	}
	if err != nil {
		return fmt.Errorf("remove what is left of the cluster of hosts: %w", err)
	}
	return nil
}

// clearHosts removes everything in hosts/ durably, except some files.
func (d *Dir) clearHosts(except ...string) error {
	entries, err := os.ReadDir(d.Hosts())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if slices.Contains(except, e.Name()) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(d.Hosts(), e.Name())); err != nil {
			return err
		}
	}
	return syncDir(d.Hosts())
}
