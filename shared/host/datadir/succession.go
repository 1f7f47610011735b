package datadir

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"
)

// Succession is succession.json: it records who leads, and which slot's log holds every
// acknowledged write. Only the holder of cluster.lock writes it.
type Succession struct {
	Schema    int    `json:"schema"` // set by WriteSuccession
	ClusterID uint64 `json:"cluster_id,string"`
	Epoch     uint64 `json:"epoch"` // from 1
	Slot      int    `json:"slot"`  // from 1
	Leader    Leader `json:"leader"`
	// Client is the address host:port that clients use.
	Client string `json:"client"`
	// BootID is the kernel's boot id at the time of writing.
	BootID string    `json:"boot_id"`
	At     time.Time `json:"at"`
}

// Leader names the process that leads.
type Leader struct {
	Address string `json:"address"` // host:port, the host an IP address
	PID     int    `json:"pid"`
	// StartTime is in clock ticks since boot, as in proc.Identity.
	StartTime uint64 `json:"start_time"`
}

func (s *Succession) validate() error {
	return errors.Join(
		need(s.Epoch > 0, "no epoch"),
		need(s.Slot > 0, "no slot"),
		need(s.BootID != "", "no boot_id"),
		validateProcess(s.Leader.Address, s.Leader.PID),
	)
}

func validateProcess(address string, pid int) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("address: %w", err)
	}
	return errors.Join(need(a.Port() > 0, "address has port 0"), need(pid > 0, "no pid"))
}

func need(ok bool, otherwise string) error {
	if ok {
		return nil
	}
	return errors.New(otherwise)
}

func (d *Dir) successionPath() string { return filepath.Join(d.path, "succession.json") }

// ReadSuccession reads succession.json. The error is os.ErrNotExist if there is none, and
// ErrCorrupt if it is malformed. It never sees a half-written file.
func (d *Dir) ReadSuccession() (Succession, error) {
	var s Succession
	err := readState(d.successionPath(), &s)
	if errors.Is(err, ErrCorrupt) {
		err = fmt.Errorf("%w (restore it from a backup of the data directory, or remove it while no member runs: the next leader then uses the most complete log of all slots, and reports which writes may be lost)", err)
	}
	if err != nil {
		return Succession{}, fmt.Errorf("read succession: %w", err)
	}
	return s, nil
}

// WriteSuccession replaces succession.json durably. After success everybody reads the new
// content, also after a power loss. After failure it may be the old or the new content.
func (d *Dir) WriteSuccession(s Succession) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	s.Schema = schema
	if err := writeState(d.successionPath(), &s); err != nil {
		return fmt.Errorf("write succession: %w", err)
	}
	return nil
}

// ReserveSuccession reserves disk space for the next WriteClaims and WriteSuccession, so that a
// completely full disk does not stop a takeover. It does nothing if the space is already
// reserved.
func (d *Dir) ReserveSuccession() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := errors.Join(reserve(d.claimsPath()), reserve(d.successionPath())); err != nil {
		return fmt.Errorf("reserve disk space for the succession: %w", err)
	}
	return nil
}

// SlotMeta is slot.json: it names the last owner of a slot. A member writes it when it opens
// the slot, before it appends to the slot's log.
type SlotMeta struct {
	Schema int `json:"schema"` // set by WriteMeta
	// BootID is the kernel's boot id at the time. Followers append without fsync. So the end of
	// a log that was written under another boot id may have holes and must not be trusted.
	BootID    string    `json:"boot_id"`
	Address   string    `json:"address"`
	PID       int       `json:"pid"`
	StartTime uint64    `json:"start_time"`
	At        time.Time `json:"at"` // set by WriteMeta if it is zero
}

func (m *SlotMeta) validate() error {
	return errors.Join(need(m.BootID != "", "no boot_id"), validateProcess(m.Address, m.PID))
}

// ReadMeta reads slot.json. Its errors are those of ReadSuccession.
func (s Slot) ReadMeta() (SlotMeta, error) {
	var m SlotMeta
	if err := readState(s.Meta(), &m); err != nil {
		return SlotMeta{}, fmt.Errorf("read slot %d: %w", s.Number, err)
	}
	return m, nil
}

// Metas reads slot.json of all slots. A slot that was never opened has none; it and one
// whose file is damaged are left out.
func (d *Dir) Metas() ([]SlotMeta, error) {
	slots, err := d.Slots()
	if err != nil {
		return nil, err
	}
	var metas []SlotMeta
	for _, n := range slots {
		if m, err := d.Slot(n).ReadMeta(); err == nil {
			metas = append(metas, m)
		}
	}
	return metas, nil
}

// WriteMeta replaces slot.json durably. The caller must own the slot.
func (s Slot) WriteMeta(m SlotMeta) error {
	m.Schema = schema
	if m.At.IsZero() {
		m.At = time.Now().UTC()
	}
	if err := writeState(s.Meta(), &m); err != nil {
		return fmt.Errorf("write slot %d: %w", s.Number, err)
	}
	return nil
}
