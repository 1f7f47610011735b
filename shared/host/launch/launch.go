package launch

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
)

// name is the first argument of a process that launches a program.
const name = "dynast-launch"

// Limit is a resource limit, such as RLIMIT_NOFILE. The soft and the hard limit are the same.
type Limit struct {
	Resource int
	Value    uint64
}

// Settings are what a program is started with.
type Settings struct {
	Umask      int // -1: as in this process
	Limits     []Limit
	Credential *syscall.Credential // nil: as in this process
	Dir        string              // "": as in this process
	NoNewPrivs bool
	// DropCapabilities are removed from all sets, including the bounding set.
	DropCapabilities []int
	DefaultSignals   []syscall.Signal // ignored by this process, but not by the program
	ListenPID        bool             // set LISTEN_PID in the environment
	// ErrorFD is the number of the descriptor of a pipe for the error.
	ErrorFD int
}

// end separates the settings from the program's path and arguments.
const end = "--"

// Arguments returns the command line that starts a program with settings.
func Arguments(s Settings, path string, argv []string) []string {
	args := []string{name, "error=" + strconv.Itoa(s.ErrorFD)}
	add := func(key string, values ...uint64) {
		text := make([]string, len(values))
		for i, v := range values {
			text[i] = strconv.FormatUint(v, 10)
		}
		args = append(args, key+"="+strings.Join(text, ","))
	}
	if s.Umask >= 0 {
		add("umask", uint64(s.Umask))
	}
	for _, l := range s.Limits {
		add("limit", uint64(l.Resource), l.Value)
	}
	if c := s.Credential; c != nil {
		values := []uint64{uint64(c.Uid), uint64(c.Gid)}
		for _, g := range c.Groups {
			values = append(values, uint64(g))
		}
		add("user", values...)
	}
	if s.Dir != "" {
		args = append(args, "dir="+s.Dir)
	}
	for _, c := range s.DropCapabilities {
		add("drop", uint64(c))
	}
	if s.NoNewPrivs {
		add("no-new-privs")
	}
	for _, sig := range s.DefaultSignals {
		add("signal", uint64(sig))
	}
	if s.ListenPID {
		add("listen")
	}
	return append(append(args, end, path), argv...)
}

// parse reverses Arguments.
func parse(args []string) (s Settings, path string, argv []string, err error) {
	s.Umask = -1
	for i, arg := range args {
		if arg == end {
			if len(args) < i+2 {
				break
			}
			return s, args[i+1], args[i+2:], nil
		}
		key, text, _ := strings.Cut(arg, "=")
		if key == "dir" {
			s.Dir = text
			continue
		}
		values, err := numbers(text)
		if err == nil {
			err = s.set(key, values)
		}
		if err != nil {
			return s, "", nil, fmt.Errorf("argument %q: %w", arg, err)
		}
	}
	return s, "", nil, errors.New("the arguments name no program")
}

func numbers(text string) ([]uint64, error) {
	if text == "" {
		return nil, nil
	}
	var values []uint64
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.ParseUint(part, 10, 64)
		if err != nil {
			return nil, err
		}
		values = append(values, n)
	}
	return values, nil
}

// counts are the least numbers of values of the settings.
var counts = map[string]int{
	"error": 1, "umask": 1, "limit": 2, "user": 2, "drop": 1, "no-new-privs": 0, "signal": 1, "listen": 0,
}

func (s *Settings) set(key string, v []uint64) error {
	if least, known := counts[key]; !known || len(v) < least {
		return errors.New("unknown or incomplete")
	}
	switch key {
	case "error":
		s.ErrorFD = int(v[0])
	case "umask":
		s.Umask = int(v[0])
	case "limit":
		s.Limits = append(s.Limits, Limit{Resource: int(v[0]), Value: v[1]})
	case "user":
		s.Credential = &syscall.Credential{Uid: uint32(v[0]), Gid: uint32(v[1])}
		for _, g := range v[2:] {
			s.Credential.Groups = append(s.Credential.Groups, uint32(g))
		}
	case "drop":
		s.DropCapabilities = append(s.DropCapabilities, int(v[0]))
	case "no-new-privs":
		s.NoNewPrivs = true
	case "signal":
		s.DefaultSignals = append(s.DefaultSignals, syscall.Signal(v[0]))
	case "listen":
		s.ListenPID = true
	}
	return nil
}

// Failure is an error of the launched process.
type Failure struct {
	Op  string // like "change to directory /srv"
	Err error  // usually a syscall.Errno
}

func (f *Failure) Error() string { return f.Op + ": " + f.Err.Error() }
func (f *Failure) Unwrap() error { return f.Err }

// encode returns the message for the pipe: an error number and the operation.
func (f *Failure) encode() string {
	var errno syscall.Errno
	op := f.Op
	if !errors.As(f.Err, &errno) {
		op = f.Error()
	}
	return strconv.Itoa(int(errno)) + " " + op
}

// ParseError returns the error that the launched process wrote into the pipe. An empty message
// means that there was none.
func ParseError(message []byte) error {
	if len(message) == 0 {
		return nil
	}
	number, op, _ := strings.Cut(string(message), " ")
	n, err := strconv.Atoi(number)
	switch {
	case err != nil:
		return fmt.Errorf("launch: unreadable error %q", message)
	case n == 0:
		return errors.New(op)
	}
	return &Failure{Op: op, Err: syscall.Errno(n)}
}
