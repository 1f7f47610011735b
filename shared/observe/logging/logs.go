package logging

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

// ErrOption means that New was given a level or a format that does not exist.
var ErrOption = errors.New("invalid logging option")

// These bound each output's queue. A burst of a few thousand lines passes without loss. A stuck
// output costs this much memory and no more.
const (
	defaultQueueBytes = 1 << 20
	defaultQueueLines = 8192
)

// Options say what is logged and where.
type Options struct {
	// Level is trace, debug, info, warn or error.
	Level string
	// Format is text or json.
	Format string
	// Stderr gets every line. An *os.File is duplicated. nil means no such output.
	Stderr io.Writer
	// Directory gets a file per member. Empty means no files.
	Directory string
	// MaxSizeBytes is the size at which a file is rotated, rounded up to MiB.
	MaxSizeBytes int64
	// MaxBackups is how many rotated files are kept. At least one is kept.
	MaxBackups int
	// Address is this member's address if it is known already; see SetAddress.
	Address string
	// QueueBytes bounds the lines that wait for one output; 0 means 1 MiB.
	QueueBytes int
	// Getenv is os.Getenv if nil. It is used for NO_COLOR and TERM.
	Getenv func(string) string
}

// Logs are the loggers of one process and their outputs. It is safe for concurrent use.
type Logs struct {
	opts     Options
	json     bool
	root     hclog.Logger
	stderr   *output // nil if there is none
	file     *output // nil if there is none; started by SetAddress
	coloured bool

	epoch   lateEpoch
	address lateAddress

	mu sync.Mutex // serializes SetAddress and Close
}

// lateEpoch and lateAddress are evaluated when a line is rendered.
type lateEpoch struct{ atomic.Uint64 }

func (e *lateEpoch) String() string               { return fmt.Sprint(e.Load()) }
func (e *lateEpoch) MarshalJSON() ([]byte, error) { return json.Marshal(e.Load()) }

type lateAddress struct{ atomic.Pointer[string] }

func (a *lateAddress) String() string {
	if s := a.Load(); s != nil && *s != "" {
		return *s
	}
	return "-"
}
func (a *lateAddress) MarshalJSON() ([]byte, error) { return json.Marshal(a.String()) }

// New starts the outputs. Close ends them. Call Flush before the process exits.
func New(o Options) (*Logs, error) {
	level, err := parseLevel(o.Level)
	if err != nil {
		return nil, err
	}
	if o.Format != "text" && o.Format != "json" {
		return nil, fmt.Errorf("invalid log format %q: must be text or json: %w", o.Format, ErrOption)
	}
	if o.QueueBytes <= 0 {
		o.QueueBytes = defaultQueueBytes
	}
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	l := &Logs{opts: o, json: o.Format == "json"}
	if err := l.openStderr(); err != nil {
		return nil, err
	}
	if o.Directory != "" {
		// It is started when the address names the file. Lines wait until then.
		l.file = newOutput(o.QueueBytes, defaultQueueLines, l.lostReport)
	}
	colour := hclog.ColorOff
	if l.coloured {
		colour = hclog.ForceColor
	}
	raw := hclog.New(&hclog.LoggerOptions{
		Level: level, Output: (*sink)(l), JSONFormat: l.json, Color: colour, ColorHeaderOnly: true,
		SubloggerHook: func(sub hclog.Logger) hclog.Logger { return safe{Logger: sub, json: l.json} },
	})
	l.root = raw.With("address", &l.address, "epoch", &l.epoch)
	if o.Address != "" {
		if err := l.SetAddress(o.Address); err != nil {
			return nil, errors.Join(err, l.Close(0))
		}
	}
	return l, nil
}

func parseLevel(s string) (hclog.Level, error) {
	switch level := hclog.LevelFromString(s); level {
	case hclog.Trace, hclog.Debug, hclog.Info, hclog.Warn, hclog.Error:
		return level, nil
	default:
		return 0, fmt.Errorf("invalid log level %q: must be trace, debug, info, warn or error: %w", s, ErrOption)
	}
}

func (l *Logs) openStderr() error {
	if l.opts.Stderr == nil {
		return nil
	}
	w := l.opts.Stderr
	if f, ok := w.(*os.File); ok {
		d, err := duplicate(f)
		if err != nil {
			return fmt.Errorf("duplicate standard error: %w", err)
		}
		w = d
		l.coloured = !l.json && d.terminal && wantsColour(l.opts.Getenv)
	}
	l.stderr = newOutput(l.opts.QueueBytes, defaultQueueLines, l.lostReport)
	l.stderr.start(w)
	return nil
}

// wantsColour follows no-color.org and the convention TERM=dumb.
func wantsColour(getenv func(string) string) bool {
	return getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"
}

// Logger returns the logger of a component.
func (l *Logs) Logger(name string) hclog.Logger { return l.root.Named(name) }

// SetEpoch sets the epoch in all lines from now on.
func (l *Logs) SetEpoch(epoch uint64) { l.epoch.Store(epoch) }

// SetLevel changes the level of all loggers.
func (l *Logs) SetLevel(level string) error {
	parsed, err := parseLevel(level)
	if err == nil {
		l.root.SetLevel(parsed)
	}
	return err
}

// SetAddress sets the address in all lines from now on. The first call also begins the member's
// log file, with the lines logged so far.
func (l *Logs) SetAddress(address string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.address.Store(&address)
	if l.file == nil || l.file.started() {
		return nil
	}
	f, err := openFile(l.opts, address)
	if err != nil {
		return fmt.Errorf("open the log file of %s: %w", address, err)
	}
	l.file.start(f)
	return nil
}

// Flush waits until all earlier lines are written or lost, and reports whether that happened
// within the timeout.
func (l *Logs) Flush(timeout time.Duration) bool {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for _, o := range []*output{l.stderr, l.file} {
		if o == nil || !o.started() {
			continue
		}
		select {
		case <-o.written():
		case <-timer.C:
			return false
		}
	}
	return true
}

// Close flushes and ends the outputs. Later lines are dropped. It waits for a stuck output for
// no longer than the timeout.
func (l *Logs) Close(timeout time.Duration) error {
	flushed := l.Flush(timeout)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, o := range []*output{l.stderr, l.file} {
		if o != nil {
			o.close()
		}
	}
	if !flushed {
		return errors.New("close logs: an output is stuck, its last lines are lost")
	}
	return nil
}

// Dropped is the number of lines that did not reach an output, since the start.
func (l *Logs) Dropped() uint64 {
	var n uint64
	for _, o := range []*output{l.stderr, l.file} {
		if o != nil {
			n += o.dropped()
		}
	}
	return n
}

// sink receives hclog's lines. It does not block.
type sink Logs

func (s *sink) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	line := bytes.Clone(p) // because hclog reuses its buffer
	if s.stderr != nil {
		s.stderr.put(line)
	}
	if s.file != nil {
		if s.coloured {
			line = withoutColour(line)
		}
		s.file.put(line)
	}
	return len(p), nil
}

// lostReport returns the line that reports lost lines.
func (l *Logs) lostReport(lines uint64, cause error) []byte {
	var b bytes.Buffer
	reason := "the output was too slow"
	if cause != nil {
		reason = cause.Error()
	}
	hclog.New(&hclog.LoggerOptions{Name: "logging", Output: &b, JSONFormat: l.json}).
		Warn("log lines were lost here", "address", &l.address, "epoch", &l.epoch, "lines", lines, "reason", reason)
	return b.Bytes()
}
