package datadir

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// The notes that one process leaves in a slot for the next that opens it. They
// are not synced: after a power loss what a note was about is found out again.
const (
	condemnedName  = "condemned"
	owesDefragName = "defragment"

	maxNoteBytes = 4 << 10
)

// Condemn notes that the copy in a slot is wrong: it is never led with, and the
// follower that opens the slot next throws it away.
func (s Slot) Condemn(reason string) error {
	if len(reason) > maxNoteBytes {
		reason = reason[:maxNoteBytes]
	}
	if err := os.WriteFile(s.note(condemnedName), []byte(reason+"\n"), stateMode); err != nil {
		return fmt.Errorf("condemn slot %d: %w", s.Number, err)
	}
	return nil
}

// Condemned returns why the copy in a slot is wrong; false when nobody said so.
func (s Slot) Condemned() (reason string, condemned bool) {
	f, err := os.Open(s.note(condemnedName))
	if errors.Is(err, os.ErrNotExist) {
		return "", false
	}
	if err != nil {
		return err.Error(), true // it is there; what it says is of no account
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxNoteBytes))
	if err != nil {
		return err.Error(), true
	}
	return strings.TrimSpace(string(raw)), true
}

// Pardon removes the note of Condemn, when what it was about is gone.
func (s Slot) Pardon() error { return s.removeNote(condemnedName) }

// OweDefrag notes that the database in a slot is to be rewritten by the
// follower that opens it next.
func (s Slot) OweDefrag() error {
	if err := os.WriteFile(s.note(owesDefragName), nil, stateMode); err != nil {
		return fmt.Errorf("note in slot %d: %w", s.Number, err)
	}
	return nil
}

// OwesDefrag reports whether somebody noted OweDefrag.
func (s Slot) OwesDefrag() bool {
	_, err := os.Stat(s.note(owesDefragName))
	return err == nil
}

// PaidDefrag removes the note of OweDefrag.
func (s Slot) PaidDefrag() error { return s.removeNote(owesDefragName) }

func (s Slot) note(name string) string { return filepath.Join(s.path, name) }

func (s Slot) removeNote(name string) error {
	if err := os.Remove(s.note(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("note in slot %d: %w", s.Number, err)
	}
	return nil
}
