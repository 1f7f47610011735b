package imports

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// Kind is a format that Import reads.
type Kind string

// The kinds.
const (
	Procfile       Kind = "procfile"
	Supervisord    Kind = "supervisord"
	ProcessCompose Kind = "process-compose"
	Systemd        Kind = "systemd"
)

// Kinds lists all kinds.
var Kinds = []Kind{Procfile, Supervisord, ProcessCompose, Systemd}

// File is an input file.
type File struct {
	// Name is how comments and errors call the file.
	Name string
	// Dir is the absolute path of its directory.
	Dir     string
	Content []byte
}

// Options say how files are read.
type Options struct {
	// Kind is the kind of all files. If it is empty, name and content decide.
	Kind Kind
	// Glob returns the files that match a pattern of an [include] section. A relative pattern
	// starts at dir. Without Glob, the section becomes a comment.
	Glob func(dir, pattern string) ([]File, error)
}

// Error is a mistake in an input file.
type Error struct {
	File string
	// Line counts from 1. It is 0 if the mistake is not on a certain line.
	Line int
	Text string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Text
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Text)
}

// place is where something stands in the input.
type place struct {
	file string
	line int
}

func (p place) String() string { return fmt.Sprintf("%s:%d", p.file, p.line) }

func (p place) errorf(format string, args ...any) error {
	return &Error{File: p.file, Line: p.line, Text: fmt.Sprintf(format, args...)}
}

// Import returns service blocks for the programs of files, formatted. Several files must be of
// the same kind: units of systemd, or files of supervisord.
func Import(files []File, o Options) ([]byte, error) {
	kind := o.Kind
	for _, f := range files {
		if err := checkText(f); err != nil {
			return nil, err
		}
		if o.Kind != "" {
			continue
		}
		k, err := detect(f)
		if err != nil {
			return nil, err
		}
		if kind != "" && k != kind {
			return nil, &Error{File: f.Name, Text: fmt.Sprintf("this file is of the kind %s, but %s is of the kind %s: import them one after the other", k, files[0].Name, kind)}
		}
		kind = k
	}
	if len(files) > 1 && (kind == Procfile || kind == ProcessCompose) {
		return nil, &Error{File: files[1].Name, Text: fmt.Sprintf("only one file of the kind %s can be imported at a time", kind)}
	}
	out := &output{}
	var err error
	switch kind {
	case Procfile:
		err = out.procfile(files[0], o)
	case Supervisord:
		err = out.supervisord(files, o)
	case ProcessCompose:
		err = out.compose(files[0])
	case Systemd:
		err = out.systemd(files)
	default:
		return nil, fmt.Errorf("unknown kind %q: must be one of %s", kind, strings.Join(kindNames(), ", "))
	}
	if err != nil {
		return nil, err
	}
	return out.render(files, kind)
}

func kindNames() []string {
	var names []string
	for _, k := range Kinds {
		names = append(names, string(k))
	}
	return names
}

// checkText refuses a file that is not text. The rest of the package relies on valid UTF-8.
func checkText(f File) error {
	for i, line := range bytes.Split(f.Content, []byte("\n")) {
		at := place{f.Name, i + 1}
		switch {
		case !utf8.Valid(line):
			return at.errorf("the line is not valid UTF-8")
		case bytes.IndexByte(line, 0) >= 0:
			return at.errorf("the line contains a NUL byte")
		}
	}
	return nil
}

var (
	supervisordSection = pattern(`(?m)^\[(program:|supervisord\]|supervisorctl\]|include\]|group:|eventlistener:|fcgi-program:|unix_http_server\]|inet_http_server\])`)
	unitSection        = pattern(`(?m)^\[(Unit|Service|Install|Socket|Timer)\]`)
	composeKey         = pattern(`(?m)^["']?processes["']?\s*:`)
	dockerKey          = pattern(`(?m)^["']?services["']?\s*:`)
)

// detect finds the kind of a file from its name, then from its content.
func detect(f File) (Kind, error) {
	base := filepath.Base(f.Name)
	ext := strings.ToLower(filepath.Ext(base))
	switch {
	case base == "Procfile" || strings.HasPrefix(base, "Procfile.") || ext == ".procfile":
		return Procfile, nil
	case ext == ".service" || ext == ".socket" || ext == ".timer":
		return Systemd, nil
	case supervisordSection().Match(f.Content):
		return Supervisord, nil
	case unitSection().Match(f.Content):
		return Systemd, nil
	case composeKey().Match(f.Content):
		return ProcessCompose, nil
	case dockerKey().Match(f.Content) && (ext == ".yaml" || ext == ".yml"):
		return "", &Error{File: f.Name, Text: "this looks like a file of docker compose, which runs containers: only process-compose files can be imported"}
	case ext == ".yaml" || ext == ".yml":
		return "", &Error{File: f.Name, Text: "the file has no key processes, so it is not a process-compose file"}
	}
	if lines, err := procfileLines(f); err == nil && len(lines) > 0 {
		return Procfile, nil
	}
	return "", &Error{File: f.Name, Text: "cannot tell the kind of this file: add --as with one of " + strings.Join(kindNames(), ", ")}
}
