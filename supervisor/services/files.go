package services

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/google/renameio/v2"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/observe/ps"
	rules "github.com/dynast-io/dynast/shared/rules/services"
)

// desired is what shall run. It is the file desired.json.
type desired struct {
	Schema int `json:"schema"`
	// BootID is the boot in which the file was written.
	BootID string `json:"boot_id"`
	// Stopped means that dynast was stopped in an orderly way, together with all services.
	Stopped bool `json:"stopped"`
	// Stopping means that such a stop has begun and has not ended.
	Stopping bool `json:"stopping,omitempty"`
	// Configured are the services of the configuration file, and Added those that an operator
	// added at run time.
	Configured []config.Service `json:"configured"`
	Added      []added          `json:"added,omitempty"`
	// Ended are the last instances of added services that were removed because they had ended.
	Ended []ps.Ended `json:"ended,omitempty"`
	// Wishes are what an operator changed.
	Wishes map[string]rules.Wish `json:"wishes,omitempty"`
	// Fired is when each schedule was last due.
	Fired map[string]time.Time `json:"fired,omitempty"`
}

// added is a service that an operator added at run time.
type added struct {
	Service config.Service `json:"service"`
	// Remove means that the service is removed when it has ended.
	Remove bool `json:"remove,omitempty"`
}

// stored is the record of an instance as it is in its file.
type stored struct {
	Schema int          `json:"schema"`
	BootID string       `json:"boot_id"`
	Record rules.Record `json:"record"`
	// Token is in the environment of the process.
	Token string `json:"token"`
	// Service is what the process was started with.
	Service config.Service `json:"service"`
	// Status is the last STATUS= of the process.
	Status string `json:"status,omitempty"`
	// Cgroup is the control group of the instance, or empty.
	Cgroup string `json:"cgroup,omitempty"`
	// ExitAt is the wall clock at the last exit.
	ExitAt time.Time `json:"exit_at"`
}

// schema is the version of both files.
const schema = 1

// files reads and writes the files below a directory.
type files struct{ dir string }

func (f files) instance(id rules.ID) string {
	return filepath.Join(f.dir, id.Service, strconv.Itoa(id.N))
}

func (f files) lock(id rules.ID) string     { return filepath.Join(f.instance(id), "lock") }
func (f files) record(id rules.ID) string   { return filepath.Join(f.instance(id), "record.json") }
func (f files) output(id rules.ID) string   { return filepath.Join(f.instance(id), "output.log") }
func (f files) owner(service string) string { return filepath.Join(f.dir, service, "owner.json") }
func (f files) desired() string             { return filepath.Join(f.dir, "desired.json") }

// readDesired returns desired.json. It is empty if there is none.
func (f files) readDesired() (desired, error) {
	d := desired{Schema: schema}
	err := read(f.desired(), &d)
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err == nil && d.Schema != schema {
		err = fmt.Errorf("%s has schema %d; this build knows %d: use a newer dynast", f.desired(), d.Schema, schema)
	}
	if err != nil {
		err = fmt.Errorf("no service is supervised, and those that run go on: %w. Put the file back from a backup, or move it away: then the services of the configuration are supervised again, "+
			"and those of 'dynast run' have to be added again", err)
	}
	return d, err
}

func (f files) writeDesired(d desired) error {
	d.Schema = schema
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return fmt.Errorf("services: %w", err)
	}
	b, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return fmt.Errorf("services: encode desired.json: %w", err)
	}
	if err := f.removeTemporary(); err != nil {
		return err
	}
	// Unlike a record, it has to survive a power loss. Without the option, the temporary file would
	// be in TMPDIR, where nobody removes it after a crash.
	if err := renameio.WriteFile(f.desired(), append(b, '\n'), 0o600, renameio.WithTempDir(f.dir)); err != nil {
		return fmt.Errorf("services: %w", err)
	}
	return nil
}

// removeTemporary removes what leaders left behind that died while they replaced desired.json.
func (f files) removeTemporary() error {
	left, err := filepath.Glob(filepath.Join(f.dir, ".desired.json*"))
	for _, path := range left {
		err = errors.Join(err, ignoreMissing(os.Remove(path)))
	}
	if err != nil {
		return fmt.Errorf("services: %w", err)
	}
	return nil
}

// writeRecord replaces the record of an instance. before is what it returned last, or the checksum of
// the record that was read: a record that has not changed is not written again. With an error it returns 0.
func (f files) writeRecord(s stored, before uint64) (now uint64, err error) {
	s.Schema = schema
	b, err := encode(s)
	if err != nil {
		return 0, err
	}
	if now = checksum(b); now == before {
		return now, nil
	}
	if err := replace(f.record(s.Record.ID), b); err != nil {
		return 0, err
	}
	return now, nil
}

// checksum tells the content of a file from other contents, within this process.
func checksum(b []byte) uint64 { return maphash.Bytes(checksumSeed, b) }

var checksumSeed = maphash.MakeSeed()

// forget removes the record of an instance. Its output stays, so that an operator can read it.
func (f files) forget(id rules.ID) error {
	if err := ignoreMissing(os.Remove(f.record(id))); err != nil {
		return fmt.Errorf("services: %w", err)
	}
	return nil
}

// instances returns the instances that have a directory.
func (f files) instances() ([]rules.ID, error) {
	var out []rules.ID
	names, err := os.ReadDir(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("services: %w", err)
	}
	for _, name := range names {
		if !name.IsDir() {
			continue
		}
		numbers, err := os.ReadDir(filepath.Join(f.dir, name.Name()))
		if err != nil {
			return nil, fmt.Errorf("services: %w", err)
		}
		for _, number := range numbers {
			if n, err := strconv.Atoi(number.Name()); err == nil && n > 0 && number.IsDir() {
				out = append(out, rules.ID{Service: name.Name(), N: n})
			}
		}
	}
	return out, nil
}

// readRecord returns the record of an instance. ok is false if there is none.
func (f files) readRecord(id rules.ID) (s stored, sum uint64, ok bool, err error) {
	b, err := os.ReadFile(f.record(id))
	if err == nil {
		sum, err = checksum(b), decode(f.record(id), b, &s)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return stored{}, 0, false, nil
	case err == nil && (s.Schema != schema || s.Record.ID != id):
		err = fmt.Errorf("%s is not the record of %s in schema %d", f.record(id), id, schema)
	}
	return s, sum, err == nil, err
}

func read(path string, into any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("services: %w", err)
	}
	return decode(path, b, into)
}

func decode(path string, b []byte, into any) error {
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("services: %s is damaged: %w", path, err)
	}
	return nil
}

// write replaces a file atomically. It does not wait for the disk: no process that a record
// describes survives a power loss either. The temporary file has a fixed name, so that crashes
// leave at most one of them behind.
func write(path string, v any) error {
	b, err := encode(v)
	if err != nil {
		return err
	}
	return replace(path, b)
}

func encode(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("services: encode a %T: %w", v, err)
	}
	return append(b, '\n'), nil
}

func replace(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("services: %w", err)
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("services: %w", errors.Join(err, ignoreMissing(os.Remove(tmp))))
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("services: %w", err)
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
