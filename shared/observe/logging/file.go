package logging

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"gopkg.in/natefinch/lumberjack.v2"
)

// openFile opens a member's log file. It opens the file once by itself, so that an unwritable
// directory is an error at the start and does not just lose lines.
func openFile(o Options, address string) (io.WriteCloser, error) {
	if err := os.MkdirAll(o.Directory, 0o750); err != nil {
		return nil, fmt.Errorf("make log directory: %w", err)
	}
	path := filepath.Join(o.Directory, FileName(address))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, fmt.Errorf("open log file: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("open log file: %w", err)
	}
	const mib = 1 << 20
	return &lumberjack.Logger{
		Filename: path,
		MaxSize:  int(max(1, (o.MaxSizeBytes+mib-1)/mib)),
		// For lumberjack, 0 would mean to keep all files.
		MaxBackups: max(1, o.MaxBackups),
	}, nil
}

// FileName returns the name of a member's log file, like 127.0.0.1_7401.log.
func FileName(address string) string {
	return strings.NewReplacer("[", "", "]", "", ":", "_", "/", "_").Replace(address) + ".log"
}

// withoutColour removes the escape sequences (ESC [ ... m) that hclog puts around a line's
// level.
func withoutColour(line []byte) []byte {
	out := make([]byte, 0, len(line))
	for {
		before, rest, found := bytes.Cut(line, []byte("\x1b["))
		out = append(out, before...)
		if !found {
			return out
		}
		end := bytes.IndexFunc(rest, func(r rune) bool { return r != ';' && (r < '0' || r > '9') })
		if end < 0 || rest[end] != 'm' {
			out = append(out, "\x1b["...) // another escape sequence, which is kept
			line = rest
			continue
		}
		line = rest[end+1:]
	}
}
