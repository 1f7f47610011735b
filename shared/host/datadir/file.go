package datadir

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// ErrCorrupt means that a state file is malformed.
var ErrCorrupt = errors.New("corrupt state file")

// schema is the version of the state files that this program writes.
const schema = 1

// maxStateBytes bounds how much of a state file is read. All state files are below 1 KiB.
const maxStateBytes = 64 << 10

// stateMode lets everybody read a state file who may enter the data directory.
const stateMode = 0o644

// replaceFile replaces a file as a whole and durably. Only one caller may write at a time.
// The temporary file has a fixed name, so a file that a crash left behind is used by the
// next write, and such files do not pile up.
//
// google/renameio does not sync the directory, and its random names would pile up.
func replaceFile(path string, data []byte) error {
	tmp := path + spareSuffix
	// The file is not truncated before it is written. A file that reserve made owns a disk
	// block that a full disk would not give.
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE, stateMode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Truncate(int64(len(data)))
	}
	if err == nil {
		err = f.Chmod(stateMode) // independent of the umask
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp) // on a full disk, give the space back
		return err
	}
	return syncDir(filepath.Dir(path))
}

const (
	spareSuffix = ".new"
	spareBytes  = 4096
)

// reserve makes sure that the next replaceFile finds a file that already has disk space. If
// there is no space for one, reserve leaves nothing behind.
func reserve(path string) error {
	tmp := path + spareSuffix
	if _, err := os.Lstat(tmp); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, stateMode)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, spareBytes))
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(tmp)
	}
	return err
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// makeDurably makes a directory with mode 0700 and its missing parents with the umask's mode,
// and makes its name durable.
func makeDurably(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	parent := filepath.Dir(path)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	err = os.Mkdir(path, 0o700)
	if errors.Is(err, os.ErrExist) {
		return nil // if it is not a directory, its user finds out
	}
	if err != nil {
		return err
	}
	return syncDir(parent)
}

// readState reads and decodes a state file. The error is ErrCorrupt if it is malformed, and
// os.ErrNotExist if there is none.
func readState(path string, into validator) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxStateBytes+1))
	if err != nil {
		return err
	}
	if err := decodeState(raw, into); err != nil {
		return fmt.Errorf("%w %s: %w", ErrCorrupt, path, err)
	}
	return nil
}

// validator is the content of a state file.
type validator interface{ validate() error }

// decodeState is strict. The schema must be known, so an unknown field means damage or a
// foreign file.
func decodeState(raw []byte, into validator) error {
	if len(raw) > maxStateBytes {
		return fmt.Errorf("it is longer than %d bytes", maxStateBytes)
	}
	var version struct{ Schema int }
	if err := json.Unmarshal(raw, &version); err != nil {
		return err
	}
	if version.Schema != schema {
		return fmt.Errorf("it has schema %d, but this version of dynast knows only schema %d", version.Schema, schema)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	return into.validate()
}

func writeState(path string, v validator) error {
	if err := v.validate(); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(path, append(raw, '\n'))
}
