package proc

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Signal sends a signal to exactly the named process. It is no error if that process is gone.
func Signal(id Identity, sig unix.Signal) error {
	p, err := Open(id)
	if errors.Is(err, ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.Close()
	if err := p.Signal(sig); err != nil && !errors.Is(err, ErrGone) {
		return fmt.Errorf("%s to %s: %w", unix.SignalName(sig), id, err)
	}
	return nil
}
