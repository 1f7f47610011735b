package logview

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/dynast-io/dynast/shared/observe/output"
)

// outputName is the name of the live output file in the directory of an instance.
const outputName = "output.log"

// gapMessage is the message of an entry that stands for missing output.
const gapMessage = "(output is missing here)"

// instanceTail reads the output of an instance. Each line is an entry.
type instanceTail struct {
	instance string
	r        *output.Reader
	latest   time.Time // of the entries so far
	after    *Entry    // the entry that follows the one about a gap
	waiting  int       // the length of the unfinished line at the last call of settled
}

func newInstanceTail(services, instance string) *instanceTail {
	return &instanceTail{instance: instance, r: output.NewReader(filepath.Join(services, instance, outputName))}
}

func (t *instanceTail) close() { t.r.Close() }

// seek moves near the first entry that a query wants, but not behind it.
func (t *instanceTail) seek(ctx context.Context, q Query) error {
	var err error
	switch {
	case q.Tail >= 0:
		err = t.r.SeekTail(ctx, q.Tail)
	case !q.Since.IsZero():
		err = t.r.SeekTime(ctx, q.Since)
	}
	return t.check(err)
}

// check makes an error of the reader one of the tail. An instance that has printed nothing yet
// has no file.
func (t *instanceTail) check(err error) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("read the output of %s: %w", t.instance, err)
}

func (t *instanceTail) next(ctx context.Context) (*Entry, error) {
	if e := t.after; e != nil {
		t.after = nil
		return e, nil
	}
	l, err := t.r.Next(ctx)
	if err != nil {
		return nil, t.check(err)
	}
	return t.made(l), nil
}

func (t *instanceTail) flush() *Entry {
	if l, ok := t.r.Rest(); ok {
		return t.made(l)
	}
	return nil
}

func (t *instanceTail) settled() *Entry {
	if n := t.r.Pending(); n == 0 || n != t.waiting {
		t.waiting = n
		return nil
	}
	return t.flush()
}

// made makes an entry of a line. If output before the line is missing, it returns an entry about
// that first.
func (t *instanceTail) made(l output.Line) *Entry {
	t.waiting = 0
	if l.Time.After(t.latest) {
		t.latest = l.Time
	}
	e := &Entry{At: l.Time, Instance: t.instance, Message: l.Text, Raw: l.Text, Partial: l.Partial, position: t.latest}
	if !l.Gap {
		return e
	}
	t.after = e
	return &Entry{At: l.Time, Instance: t.instance, Message: gapMessage, Gap: true, position: t.latest}
}

// outputJSON is JSON for the line of an instance.
func (e *Entry) outputJSON() string {
	line, err := encode(struct {
		At       string `json:"at"`
		Instance string `json:"instance"`
		Text     string `json:"text"`
		Partial  bool   `json:"partial,omitempty"`
		Gap      bool   `json:"gap,omitempty"`
	}{e.At.Format(time.RFC3339Nano), e.Instance, e.Message, e.Partial, e.Gap})
	if err != nil {
		return e.Raw // cannot happen
	}
	// JSON escapes only some control characters. A terminal may act on the others.
	var b strings.Builder
	for _, r := range line {
		if r >= 0x7f && r <= 0x9f {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}
