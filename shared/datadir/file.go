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

// ErrCorrupt says that a state file makes no sense.
var ErrCorrupt = errors.New("corrupt state file")

// schema is the version of the state files that this program writes.
const schema = 1

// maxStateBytes bounds what is read of a state file: all are below 1 KiB.
const maxStateBytes = 64 << 10

// stateMode lets those read it who may read the data directory.
const stateMode = 0o644

// replaceFile replaces a file as a whole and durably. There must be one writer
// at a time: the temporary file has a fixed name, so one that a crash left behind
// is used up by the next write and none pile up.
//
// google/renameio does not sync the directory, and makes random names, which
// pile up.
func replaceFile(path string, data []byte) error {
	tmp := path + spareSuffix
	// Not truncated before it is written: a file kept in reserve has the block
	// that a full disk would not give.
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE, stateMode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Truncate(int64(len(data)))
	}
	if err == nil {
		err = f.Chmod(stateMode) // whatever the umask is
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp) // on a full disk, give the room back
		return err
	}
	return syncDir(filepath.Dir(path))
}

const (
	spareSuffix = ".new"
	spareBytes  = 4096
)

// reserve makes sure that the next replaceFile finds a file with room in it.
// Without room for it there is none, and nothing is left behind.
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

// makeDurably makes a directory (mode 0700), and its parents as the umask says,
// and makes sure that its name is on the disk.
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
		return nil // not a directory: told by who uses it
	}
	if err != nil {
		return err
	}
	return syncDir(parent)
}

// readState reads and decodes a state file. The error is ErrCorrupt when it
// makes no sense, and os.ErrNotExist when there is none.
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

// validator is a state file's content.
type validator interface{ validate() error }

// decodeState is strict: the schema must be known, so an unknown field can only
// be damage or a file that is not ours.
func decodeState(raw []byte, into validator) error {
	if len(raw) > maxStateBytes {
		return fmt.Errorf("longer than %d bytes", maxStateBytes)
	}
	var version struct{ Schema int }
	if err := json.Unmarshal(raw, &version); err != nil {
		return err
	}
	if version.Schema != schema {
		return fmt.Errorf("schema %d, this version knows %d only", version.Schema, schema)
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
