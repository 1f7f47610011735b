package datadir

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Host is hosts/host.json. A data directory that has it belongs to a cluster of several hosts:
// its store is the etcd server of this host (the engine), and not the replicas in slots/. The
// file is written when everything else in hosts/ is complete. So its appearance is the moment
// at which this host changes from one mode to the other.
type Host struct {
	Schema int `json:"schema"` // set by WriteHost
	// Cluster names the cluster. No two clusters have the same name, and recovery after the loss
	// of a majority gives a new one.
	Cluster string `json:"cluster"`
	// Name is the name of this host, and Address the IP:PORT at which the other hosts reach it.
	Name    string `json:"name"`
	Address string `json:"address"`
	// Members are the addresses of all hosts, by name, at the moment when this host joined. The
	// engine needs them for its first start only.
	Members map[string]string `json:"members"`
	// HasData is true if engine/ must hold data. An engine that finds none then does not start.
	// Otherwise it would begin an empty store in place of one that was lost.
	HasData bool `json:"has_data,omitempty"`
	// Served is true once the engine has begun to serve clients. Until then, the store in slots/
	// has everything that the engine has, so the host can go back to it.
	Served bool `json:"served,omitempty"`
	// Halted is true while the engine must not run, because the leader changes the mode of this
	// host. HaltedAt is when that began. A leader that finds it set goes back to the engine.
	Halted   bool      `json:"halted,omitempty"`
	HaltedAt time.Time `json:"halted_at,omitzero"`
	// Recover asks the engine to form a new cluster of itself alone at its next start. Recovery
	// describes that; it stays when it is done.
	Recover  bool      `json:"recover,omitempty"`
	Recovery *Recovery `json:"recovery,omitempty"`
	// Removed is true after the other hosts have removed this one.
	Removed bool      `json:"removed,omitempty"`
	At      time.Time `json:"at"`
}

// Recovery describes a new cluster that was formed after the loss of a majority.
type Recovery struct {
	// From is the cluster that was lost, and To the new one.
	From string `json:"from"`
	To   string `json:"to"`
	// Revision is where the copy of this host ended.
	Revision int64     `json:"revision"`
	Asked    time.Time `json:"asked"`
}

// Left is hosts/left.json. It says that this host has gone back from a cluster of hosts to a single
// host's store.
type Left struct {
	Schema  int    `json:"schema"` // set by WriteLeft
	Cluster string `json:"cluster"`
	Name    string `json:"name"`
	// Revision and Bytes describe what was kept.
	Revision int64 `json:"revision"`
	Bytes    int64 `json:"bytes"`
	// Stopped is when the engine was stopped, and Served when clients were served again. Served
	// is zero until then.
	Stopped time.Time `json:"stopped"`
	Served  time.Time `json:"served,omitzero"`
}

func (l *Left) validate() error {
	return errors.Join(need(l.Cluster != "", "no cluster"), need(l.Name != "", "no name"))
}

func (h *Host) validate() error {
	err := errors.Join(need(h.Cluster != "", "no cluster"), need(h.Name != "", "no name"))
	if _, e := netip.ParseAddrPort(h.Address); e != nil {
		err = errors.Join(err, need(false, "address: "+e.Error()))
	}
	err = errors.Join(err, need(!h.Recover || h.Recovery != nil && h.Recovery.To != "", "it asks for a recovery, and does not say of which cluster"))
	return errors.Join(err, need(h.Members[h.Name] == h.Address, "members do not contain this host"))
}

// Hosts is the directory of what belongs to the cluster of hosts.
func (d *Dir) Hosts() string { return filepath.Join(d.path, "hosts") }

// HostsPKI is the directory of the authority with which hosts recognize each other.
func (d *Dir) HostsPKI() string { return filepath.Join(d.Hosts(), "pki") }

// Engine is etcd's data directory.
func (d *Dir) Engine() string { return filepath.Join(d.Hosts(), "engine") }

func (d *Dir) hostPath() string { return filepath.Join(d.Hosts(), "host.json") }

// beginningName is a file that exists while a host changes from the store of a single host to an engine
// that has served nobody yet.
const beginningName = "beginning"

func (d *Dir) beginningPath() string { return filepath.Join(d.Hosts(), beginningName) }

// BeginHosts removes what is left of an earlier cluster of hosts, and records that a new one begins. Until
// EndBeginning, hosts/ is worth nothing without host.json.
func (d *Dir) BeginHosts() error {
	err := makeDurably(d.Hosts())
	if err == nil {
		err = errors.Join(os.WriteFile(d.beginningPath(), nil, 0o600), syncDir(d.Hosts()))
	}
	if err == nil {
		err = d.clearHosts(beginningName)
	}
	if err != nil {
		return fmt.Errorf("begin a cluster of hosts: %w", err)
	}
	return nil
}

// EndBeginning records that the engine has begun to serve. From then on, hosts/ has what nothing else has.
func (d *Dir) EndBeginning() error {
	err := os.Remove(d.beginningPath())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err = errors.Join(err, syncDir(d.Hosts())); err != nil {
		return fmt.Errorf("end the beginning of a cluster of hosts: %w", err)
	}
	return nil
}

// ReadHost reads host.json. The error is os.ErrNotExist in the data directory of a single host. It is
// another one if the file is missing although there is an engine that may have served.
func (d *Dir) ReadHost() (Host, error) {
	var h Host
	err := readState(d.hostPath(), &h)
	if errors.Is(err, os.ErrNotExist) {
		if lost := d.checkLost(); lost != nil {
			err = lost
		}
	}
	if err != nil {
		return Host{}, fmt.Errorf("read the host's record: %w", err)
	}
	return h, nil
}

// checkLost returns an error if host.json must exist.
func (d *Dir) checkLost() error {
	for _, path := range []string{d.beginningPath(), d.leftPath()} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			return err // nil if it exists
		}
	}
	if _, err := os.Lstat(filepath.Join(d.Engine(), "member")); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("%s is missing, but %s has the data of a host of several: put the file back, for example from a backup. "+
		"If other hosts are alive, you can instead remove this one there ('dynast hosts remove NAME'), move %s away, and join again. Nothing was changed", d.hostPath(), d.Engine(), d.path)
}

// ManyHosts reports whether the store of this data directory is an engine. An unreadable
// record counts as one, so that damage never makes old data appear again.
func (d *Dir) ManyHosts() bool {
	_, err := d.ReadHost()
	return !errors.Is(err, os.ErrNotExist)
}

// WriteHost replaces host.json durably.
func (d *Dir) WriteHost(h Host) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := makeDurably(d.Hosts()); err != nil {
		return fmt.Errorf("write the host's record: %w", err)
	}
	if err := d.writeHost(h); err != nil {
		return fmt.Errorf("write the host's record: %w", err)
	}
	return nil
}

func (d *Dir) writeHost(h Host) error {
	h.Schema, h.At = schema, time.Now()
	return writeState(d.hostPath(), &h)
}

// UpdateHost changes host.json durably. The leader and the engine of a host both change it, so this
// locks the directory meanwhile. It returns the new content.
func (d *Dir) UpdateHost(change func(*Host)) (Host, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h, err := d.updateHost(change)
	if err != nil {
		return h, fmt.Errorf("change the host's record: %w", err)
	}
	return h, nil
}

func (d *Dir) updateHost(change func(*Host)) (Host, error) {
	f, err := os.Open(d.Hosts())
	if err != nil {
		return Host{}, err
	}
	defer f.Close() // it also releases the lock
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return Host{}, err
		}
	}
	h, err := d.ReadHost()
	if err != nil {
		return h, err
	}
	change(&h)
	return h, d.writeHost(h)
}

// RemoveHost removes host.json durably. From then on the store is the one in slots/ again.
func (d *Dir) RemoveHost() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := ignoreMissing(os.Remove(d.hostPath())); err != nil {
		return fmt.Errorf("remove the host's record: %w", err)
	}
	if err := ignoreMissing(syncDir(d.Hosts())); err != nil {
		return fmt.Errorf("remove the host's record: %w", err)
	}
	return nil
}

const engineSocket = "engine.sock"

// ListenEngine opens the socket on which the engine answers the leader of its host. Only the
// owner may connect.
func (d *Dir) ListenEngine() (*net.UnixListener, error) { return d.listen(engineSocket, 0o600) }

// DialEngine connects to the engine of this host.
func (d *Dir) DialEngine(ctx context.Context) (net.Conn, error) { return d.dial(ctx, engineSocket) }
