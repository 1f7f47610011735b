package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// The environment variables that users set. DataDirEnv overrides data_dir of the file. A flag
// overrides both.
const (
	FileEnv    = "DYNAST_CONFIG"
	DataDirEnv = "DYNAST_DATA_DIR"
)

// The files that are used if neither a flag nor the environment names one.
const (
	LocalFile  = "config.hcl"
	SystemFile = "/etc/dynast/config.hcl"
)

// Location is the configuration file that is used, and why.
type Location struct {
	// File is the path as it was given, or empty for the built-in configuration.
	File string
	// Why names what decided: a flag, a variable, or a place.
	Why string
	// searched is true if nobody named the file.
	searched bool
}

// Locate finds the configuration file. The first of these that exists decides: flag, which is the
// value of --config, the variable DYNAST_CONFIG, config.hcl in the working directory,
// /etc/dynast/config.hcl, and the built-in configuration. The value "off" of the flag or the
// variable stands for the built-in configuration.
func Locate(flag string) Location {
	return locate(flag, os.Getenv(FileEnv), []Location{
		{File: LocalFile, Why: "in the working directory", searched: true},
		{File: SystemFile, Why: "the file of this host", searched: true},
	})
}

func locate(flag, env string, places []Location) Location {
	for _, given := range []Location{{File: flag, Why: "--config"}, {File: env, Why: FileEnv}} {
		switch given.File {
		case "":
			continue
		case Off:
			given.File = ""
		}
		return given
	}
	for _, place := range places {
		// A file that this user may not see is not skipped: its settings count for the others.
		if info, err := os.Stat(place.File); err == nil && !info.IsDir() || errors.Is(err, fs.ErrPermission) {
			return place
		}
	}
	return Location{Why: "no file was found", searched: true}
}

// String names the file and why it is used.
func (l Location) String() string {
	file := l.File
	if file == "" {
		file = "the built-in configuration"
	}
	return fmt.Sprintf("%s (%s)", file, l.Why)
}

// Load reads the file over the defaults.
func (l Location) Load(defaults []byte) (*Config, error) {
	c, err := Load(l.File, defaults)
	if err != nil && l.File != "" && l.searched {
		err = fmt.Errorf("%w\n%s is used because neither --config nor %s names a file; '--config %s' uses none", err, l.File, FileEnv, Off)
	}
	return c, err
}

// Check returns an error if c, which was read from this file, has another data directory in each
// working directory, although every command of this host finds the same file.
func (l Location) Check(c *Config) error {
	if l.File != SystemFile || filepath.IsAbs(c.dataDirText) {
		return nil
	}
	return fmt.Errorf("%w: %s: data_dir = %q is not an absolute path, but this file is used in every working directory; "+
		`set it to an absolute path there, for example data_dir = "/var/lib/dynast", or give --data-dir or %s`, ErrInvalid, l.File, c.dataDirText, DataDirEnv)
}
