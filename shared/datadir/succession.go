package datadir

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"
)

// Succession is succession.json: who leads, and which slot's log holds every
// acknowledged write. Only the holder of cluster.lock writes it.
type Succession struct {
	Schema    int    `json:"schema"` // set by WriteSuccession
	ClusterID uint64 `json:"cluster_id,string"`
	Epoch     uint64 `json:"epoch"` // from 1
	Slot      int    `json:"slot"`  // from 1
	Leader    Leader `json:"leader"`
	// Client is the address host:port that clients use.
	Client string `json:"client"`
	// BootID is the kernel's boot id under which it was written.
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

// ReadSuccession reads succession.json. The error is os.ErrNotExist when there
// is none, and ErrCorrupt when it makes no sense. It never sees a file that is half
// written.
func (d *Dir) ReadSuccession() (Succession, error) {
	var s Succession
	err := readState(d.successionPath(), &s)
	if errors.Is(err, ErrCorrupt) {
		err = fmt.Errorf("%w (restore it from a backup of the data directory, or remove it while no member runs: the next leader then goes on with the most complete log among the slots, and says what it cannot exclude to be lost)", err)
	}
	if err != nil {
		return Succession{}, fmt.Errorf("read succession: %w", err)
	}
	return s, nil
}

// WriteSuccession replaces succession.json durably. On success it will be what
// everybody reads, also after a power loss; on failure it may be either.
func (d *Dir) WriteSuccession(s Succession) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	s.Schema = schema
	if err := writeState(d.successionPath(), &s); err != nil {
		return fmt.Errorf("write succession: %w", err)
	}
	return nil
}

// ReserveSuccession keeps room for the next WriteSuccession, so that a disk that
// is full to the last byte holds up no takeover. It does nothing while there is some.
func (d *Dir) ReserveSuccession() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := reserve(d.successionPath()); err != nil {
		return fmt.Errorf("reserve room for the succession: %w", err)
	}
	return nil
}

// SlotMeta is slot.json: the last owner of a slot. It is written when a member
// opens the slot, before the member appends to its log.
type SlotMeta struct {
	Schema int `json:"schema"` // set by WriteMeta
	// BootID is the kernel's boot id at the time. Followers append without
	// fsync: the end of a log that was written under another boot id may
	// have holes and is not to be trusted.
	BootID    string    `json:"boot_id"`
	Address   string    `json:"address"`
	PID       int       `json:"pid"`
	StartTime uint64    `json:"start_time"`
	At        time.Time `json:"at"` // set by WriteMeta if zero
}

func (m *SlotMeta) validate() error {
	return errors.Join(need(m.BootID != "", "no boot_id"), validateProcess(m.Address, m.PID))
}

// ReadMeta reads slot.json, with the errors of ReadSuccession.
func (s Slot) ReadMeta() (SlotMeta, error) {
	var m SlotMeta
	if err := readState(s.Meta(), &m); err != nil {
		return SlotMeta{}, fmt.Errorf("read slot %d: %w", s.Number, err)
	}
	return m, nil
}

// WriteMeta replaces slot.json durably. The caller owns the slot.
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
