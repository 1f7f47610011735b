package cli

import (
	"os"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"
)

// colour is one of the terminal's own colours, so that it fits its background.
type colour string

const (
	plain  colour = ""
	red    colour = "31"
	green  colour = "32"
	yellow colour = "33"
	cyan   colour = "36"
)

// Style says whether output is coloured. The zero value is not.
type Style struct{ Colour bool }

// styleOf follows no-color.org and the habit of TERM=dumb, and never colours
// what is no terminal.
func styleOf(f *os.File) Style {
	return Style{Colour: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(f)}
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

func (s Style) paint(c colour, text string) string {
	if !s.Colour || c == plain {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

func (s Style) bold(text string) string { return s.paint("1", text) }
func (s Style) dim(text string) string  { return s.paint("2", text) }

// printable keeps what others wrote from steering the terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsPrint(r):
			return r
		}
		return '\ufffd'
	}, text)
}
