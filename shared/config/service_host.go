package config

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// CheckHost checks what a service needs from this host: its directories, its programs, its
// users and its env_file. The error has one line for each problem, with the place of the block.
// The host can change, so Parse does not check this.
func (s Service) CheckHost() error {
	h := hostCheck{service: &s}
	h.directory()
	env := h.envFile()
	h.owner()
	if s.Script != "" {
		h.program("script", "/bin/sh", env)
	}
	for _, x := range []struct {
		path string
		argv []string
	}{{"command", s.Command}, {"ready.exec", s.Ready.argv()}, {"alive.exec", s.Alive.argv()}, {"reload.exec", s.Reload.Command}} {
		if len(x.argv) > 0 {
			h.program(x.path, x.argv[0], env)
		}
	}
	for _, l := range s.Listen {
		if path, ok := strings.CutPrefix(l.Address, unixPrefix); ok {
			h.isDirectory("listen."+l.Name+".address", filepath.Dir(path))
		}
	}
	return errors.Join(h.found...)
}

func (c *Check) argv() []string {
	if c == nil {
		return nil
	}
	return c.Command
}

// hostCheck collects what is wrong with a service on this host.
type hostCheck struct {
	service *Service
	noDir   bool // its working directory does not exist
	found   []error
}

func (h *hostCheck) bad(path, value string, err error, want string) {
	h.found = append(h.found, fmt.Errorf("%s%s.%s = %s: %w; want %s", h.service.origin(), h.service.Name, path, clip(value), err, want))
}

func (h *hostCheck) directory() {
	h.noDir = !h.isDirectory("dir", h.service.Dir)
}

func (h *hostCheck) isDirectory(path, dir string) bool {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = errors.New("not a directory")
	}
	if err != nil {
		h.bad(path, dir, cause(err), "a directory that exists")
	}
	return err == nil
}

// cause removes from an error the path that the message names anyway.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func (h *hostCheck) envFile() map[string]string {
	if h.service.EnvFile == "" {
		return nil
	}
	env, err := ReadEnvFile(h.service.EnvFile)
	if err != nil {
		h.bad("env_file", h.service.EnvFile, cause(err), "a readable file with lines NAME=VALUE")
	}
	return env
}

func (h *hostCheck) owner() {
	s := h.service
	const wantUser, wantGroup = "a user of this host; only root can start a program as another user", "a group of this host; only root can start a program in another group"
	if s.User != "" {
		switch uid, ok := lookupUser(s.User); {
		case !ok:
			h.bad("user", s.User, errors.New("there is no such user"), wantUser)
		case os.Geteuid() != 0 && uid != strconv.Itoa(os.Geteuid()):
			h.bad("user", s.User, errors.New("dynast does not run as root"), wantUser)
		case !knownUser(s.User) && s.Group == "":
			h.bad("user", s.User, errors.New("this number is not in the list of users"), "a group too")
		}
	}
	if s.Group != "" {
		switch gid, ok := lookupGroup(s.Group); {
		case !ok:
			h.bad("group", s.Group, errors.New("there is no such group"), wantGroup)
		case os.Geteuid() != 0 && gid != strconv.Itoa(os.Getegid()):
			h.bad("group", s.Group, errors.New("dynast does not run as root"), wantGroup)
		}
	}
}

// lookupUser returns the number of a user. A number needs no entry in the list of users.
func lookupUser(name string) (uid string, ok bool) {
	if u, err := user.Lookup(name); err == nil {
		return u.Uid, true
	}
	return name, isID(name)
}

func knownUser(name string) bool {
	_, err := user.Lookup(name)
	if err != nil {
		_, err = user.LookupId(name)
	}
	return err == nil
}

func lookupGroup(name string) (gid string, ok bool) {
	if g, err := user.LookupGroup(name); err == nil {
		return g.Gid, true
	}
	return name, isID(name)
}

func isID(s string) bool {
	_, err := strconv.ParseUint(s, 10, 32)
	return err == nil
}

// program checks that a program can be found: a name without a slash in PATH, any other name
// from the working directory on.
func (h *hostCheck) program(path, name string, env map[string]string) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			if h.noDir {
				return // already reported
			}
			name = filepath.Join(h.service.Dir, name)
		}
		if err := executable(name); err != nil {
			h.bad(path, name, cause(err), "a program that can be executed")
		}
		return
	}
	dirs, ok := h.service.Env["PATH"]
	if !ok {
		dirs, ok = env["PATH"]
	}
	if !ok {
		dirs = os.Getenv("PATH")
	}
	for _, dir := range filepath.SplitList(dirs) {
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(h.service.Dir, dir)
		}
		if executable(filepath.Join(dir, name)) == nil {
			return
		}
	}
	h.bad(path, name, errors.New("not found in PATH"), "a program in one of the directories "+clip(dirs))
}

func executable(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return errors.New("it is a directory")
	case info.Mode()&0o111 == 0:
		return errors.New("it is not executable")
	}
	return nil
}

// maxEnvFileBytes bounds the size of an env_file. A program with more could not be started.
const maxEnvFileBytes = 2 << 20

// ReadEnvFile reads an env_file: lines NAME=VALUE. Empty lines and lines that begin with # are
// skipped, "export " before a name is allowed, and quotes around a value are removed. An error
// about a line names its number but not its text, which may be a secret.
func ReadEnvFile(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("env_file: %w", err)
	}
	defer f.Close()
	env := map[string]string{}
	limited := &io.LimitedReader{R: f, N: maxEnvFileBytes + 1}
	lines := bufio.NewScanner(limited)
	lines.Buffer(nil, maxArgumentBytes+2)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		if !ok {
			return nil, fmt.Errorf("line %d is not NAME=VALUE", n)
		}
		name, value = strings.TrimSpace(name), unquote(value)
		if err := checkVariable(name, value); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		env[name] = value
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("env_file: %w", err)
	}
	if limited.N <= 0 {
		return nil, fmt.Errorf("larger than %s", Bytes(maxEnvFileBytes))
	}
	return env, nil
}

func unquote(s string) string {
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1]
	}
	return s
}
