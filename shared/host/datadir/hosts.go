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
	// Recover asks the engine to form a new cluster of itself alone at its next start.
	Recover bool `json:"recover,omitempty"`
	// Removed is true after the other hosts have removed this one.
	Removed bool      `json:"removed,omitempty"`
	At      time.Time `json:"at"`
}

func (h *Host) validate() error {
	err := errors.Join(need(h.Cluster != "", "no cluster"), need(h.Name != "", "no name"))
	if _, e := netip.ParseAddrPort(h.Address); e != nil {
		err = errors.Join(err, need(false, "address: "+e.Error()))
	}
	return errors.Join(err, need(h.Members[h.Name] == h.Address, "members do not contain this host"))
}

// Hosts is the directory of what belongs to the cluster of hosts.
func (d *Dir) Hosts() string { return filepath.Join(d.path, "hosts") }

// HostsPKI is the directory of the authority with which hosts recognize each other.
func (d *Dir) HostsPKI() string { return filepath.Join(d.Hosts(), "pki") }

// Engine is etcd's data directory.
func (d *Dir) Engine() string { return filepath.Join(d.Hosts(), "engine") }

func (d *Dir) hostPath() string { return filepath.Join(d.Hosts(), "host.json") }

// ReadHost reads host.json. The error is os.ErrNotExist in the data directory of a single host.
func (d *Dir) ReadHost() (Host, error) {
	var h Host
	if err := readState(d.hostPath(), &h); err != nil {
		return Host{}, fmt.Errorf("read the host's record: %w", err)
	}
	return h, nil
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
	h.Schema, h.At = schema, time.Now()
	if err := makeDurably(d.Hosts()); err != nil {
		return fmt.Errorf("write the host's record: %w", err)
	}
	if err := writeState(d.hostPath(), &h); err != nil {
		return fmt.Errorf("write the host's record: %w", err)
	}
	return nil
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
