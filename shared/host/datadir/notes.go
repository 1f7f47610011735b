package datadir

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Notes are files that one process leaves in a slot for the next process that opens it. They
// are not synced: after a power loss, the fact in a note is detected again.
const (
	condemnedName  = "condemned"
	owesDefragName = "defragment"

	maxNoteBytes = 4 << 10
)

// Condemn records that the copy in a slot is wrong. No leader uses the copy, and the follower
// that opens the slot next deletes it.
func (s Slot) Condemn(reason string) error {
	if len(reason) > maxNoteBytes {
		reason = reason[:maxNoteBytes]
	}
	if err := os.WriteFile(s.note(condemnedName), []byte(reason+"\n"), stateMode); err != nil {
		return fmt.Errorf("condemn slot %d: %w", s.Number, err)
	}
	return nil
}

// Condemned returns why the copy in a slot is wrong. condemned is false if nobody called
// Condemn.
func (s Slot) Condemned() (reason string, condemned bool) {
	f, err := os.Open(s.note(condemnedName))
	if errors.Is(err, os.ErrNotExist) {
		return "", false
	}
	if err != nil {
		return err.Error(), true // the note exists, whatever it says
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxNoteBytes))
	if err != nil {
		return err.Error(), true
	}
	return strings.TrimSpace(string(raw)), true
}

// Pardon removes the note of Condemn, after the wrong copy is gone.
func (s Slot) Pardon() error { return s.removeNote(condemnedName) }

// OweDefrag records that the follower that opens the slot next has to rewrite its database.
func (s Slot) OweDefrag() error {
	if err := os.WriteFile(s.note(owesDefragName), nil, stateMode); err != nil {
		return fmt.Errorf("write note in slot %d: %w", s.Number, err)
	}
	return nil
}

// OwesDefrag reports whether OweDefrag was called for the slot.
func (s Slot) OwesDefrag() bool {
	_, err := os.Stat(s.note(owesDefragName))
	return err == nil
}

// PaidDefrag removes the note of OweDefrag.
func (s Slot) PaidDefrag() error { return s.removeNote(owesDefragName) }

func (s Slot) note(name string) string { return filepath.Join(s.path, name) }

func (s Slot) removeNote(name string) error {
	if err := os.Remove(s.note(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove note in slot %d: %w", s.Number, err)
	}
	return nil
}
