package term

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Colour is one of the colours that the terminal defines, so that it fits the background.
type Colour string

// Red marks a fault, Yellow a fault that dynast repairs itself, and Green a good state.
const (
	Plain   Colour = ""
	Bold    Colour = "1"
	Dim     Colour = "2"
	Red     Colour = "31"
	Green   Colour = "32"
	Yellow  Colour = "33"
	Blue    Colour = "34"
	Magenta Colour = "35"
	Cyan    Colour = "36"
)

// Style says how output looks. The zero value has no colours and the default width.
type Style struct {
	Colour bool
	// Width is the width of the terminal in columns; 0 means DefaultWidth.
	Width int
}

// StyleOf returns the style for a file. It gives colours only to a terminal, and respects NO_COLOR
// (no-color.org) and TERM=dumb. Only a terminal has a width.
func StyleOf(f *os.File) Style {
	s := Style{Colour: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && IsTerminal(f)}
	if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil {
		s.Width = int(size.Col)
	}
	return s
}

// IsTerminal reports whether a file is a terminal.
func IsTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Paint colours a text.
func (s Style) Paint(c Colour, text string) string {
	if !s.Colour || c == Plain || text == "" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// Printable replaces control characters, so that the text of others cannot control the terminal.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsPrint(r):
			return r
		}
		return utf8.RuneError
	}, text)
}

// colouring matches a control sequence that sets colours or another look of the text.
var colouring = regexp.MustCompile(`\x1b\[[0-9;:]*m`)

// Output makes a line of a program's output safe for a terminal. Colours of the program are kept
// if the style has colours, and end with the line. Tabs are kept. Other control characters are
// replaced.
func (s Style) Output(line string) string {
	var b strings.Builder
	rest := strings.TrimSuffix(line, "\r")
	coloured := false
	for rest != "" {
		at := colouring.FindStringIndex(rest)
		if at == nil {
			at = []int{len(rest), len(rest)}
		}
		for i, part := range strings.Split(rest[:at[0]], "\t") {
			if i > 0 {
				b.WriteByte('\t')
			}
			b.WriteString(Printable(part))
		}
		if s.Colour && at[0] < at[1] {
			b.WriteString(rest[at[0]:at[1]])
			coloured = true
		}
		rest = rest[at[1]:]
	}
	if coloured {
		b.WriteString("\x1b[0m")
	}
	return b.String()
}

// Cell is one cell of a table.
type Cell struct {
	Text   string
	Colour Colour
	Right  bool // aligned to the right
}

// Table aligns rows, with two spaces between columns and none at the end of a line. It assumes
// that each character is one column wide.
func Table(s Style, rows [][]Cell) string {
	widths := widthsOf(rows)
	var b strings.Builder
	for _, row := range rows {
		last := len(row) - 1
		for last >= 0 && row[last].Text == "" {
			last--
		}
		for i, c := range row[:last+1] {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.Text))
			text := s.Paint(c.Colour, c.Text)
			switch {
			case c.Right:
				text = pad + text
			case i < last:
				text += pad
			}
			b.WriteString(text)
			if i < last {
				b.WriteString(strings.Repeat(" ", gap))
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// Span formats a duration with as much detail as people need.
func Span(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d < 48*time.Hour:
		return d.Round(time.Second).String()
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

// Age formats a duration in at most six characters, with its two largest units: 59s, 1m5s, 47h59m, 8d.
func Age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(int(d.Seconds()), 0))
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
