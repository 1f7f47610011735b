package imports

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// A text of this package can contain shell expressions between two marks. Input is valid UTF-8,
// so it contains neither mark.
const (
	// quoted encloses an expression that stays one word, whatever its value is.
	quoted = '\xff'
	// bare encloses an expression whose value is split into words.
	bare = '\xfe'
)

func isMark(c byte) bool { return c == quoted || c == bare }

func expression(shell string) string { return string([]byte{quoted}) + shell + string([]byte{quoted}) }

func bareExpression(shell string) string { return string([]byte{bare}) + shell + string([]byte{bare}) }

// dynamic reports whether a text contains a shell expression.
func dynamic(s string) bool {
	return strings.IndexByte(s, quoted) >= 0 || strings.IndexByte(s, bare) >= 0
}

var safeWord = pattern(`^[A-Za-z0-9_@%+=:,./-]+$`)

// shellWord writes a text as one word of a shell.
func shellWord(s string) string {
	if safeWord().MatchString(s) {
		return s
	}
	if s == "" {
		return "''"
	}
	var b strings.Builder
	for s != "" {
		if m := s[0]; isMark(m) {
			shell, rest, _ := strings.Cut(s[1:], string([]byte{m}))
			if m == quoted {
				shell = `"` + shell + `"`
			}
			b.WriteString(shell)
			s = rest
			continue
		}
		n := 0
		for n < len(s) && !isMark(s[n]) {
			n++
		}
		if literal := s[:n]; safeWord().MatchString(literal) {
			b.WriteString(literal)
		} else {
			b.WriteString("'" + strings.ReplaceAll(literal, "'", `'\''`) + "'")
		}
		s = s[n:]
	}
	return b.String()
}

func shellLine(words []string) string {
	var out []string
	for _, w := range words {
		out = append(out, shellWord(w))
	}
	return strings.Join(out, " ")
}

var (
	errQuote  = errors.New("a quotation mark is not closed")
	errEscape = errors.New("nothing follows the last backslash")
)

// splitter collects words byte by byte. Both dialects of quoting use it.
type splitter struct {
	words []string
	word  []byte
	open  bool
}

func (s *splitter) add(b ...byte) { s.word, s.open = append(s.word, b...), true }

func (s *splitter) end() {
	if s.open {
		s.words = append(s.words, string(s.word))
	}
	s.word, s.open = nil, false
}

// marked copies an expression, which begins at text[i], and returns the index of its end.
func (s *splitter) marked(text string, i int) int {
	end := i + 1 + strings.IndexByte(text[i+1:], text[i])
	s.add([]byte(text[i : end+1])...)
	return end
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// splitShlex splits a text as Python's shlex.split does, which supervisord uses.
func splitShlex(text string) ([]string, error) {
	var s splitter
	var quote byte
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case isMark(c):
			i = s.marked(text, i)
		case quote != 0 && c == quote:
			quote = 0
		case c == '\\' && quote != '\'':
			if i++; i == len(text) {
				return nil, errEscape
			}
			if quote == '"' && text[i] != '"' && text[i] != '\\' {
				s.add('\\')
			}
			if isMark(text[i]) {
				i = s.marked(text, i)
			} else {
				s.add(text[i])
			}
		case quote != 0:
			s.add(c)
		case c == '"' || c == '\'':
			quote = c
			s.add()
		case isSpace(c):
			s.end()
		default:
			s.add(c)
		}
	}
	if quote != 0 {
		return nil, errQuote
	}
	s.end()
	return s.words, nil
}

// splitUnit splits a text as systemd does: quotation marks of both kinds, and the escapes of C
// everywhere. A backslash that starts no escape is kept.
func splitUnit(text string) ([]string, error) {
	var s splitter
	var quote byte
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quote != 0 && c == quote:
			quote = 0
		case c == '\\':
			n, err := s.unescape(text[i:])
			if err != nil {
				return nil, err
			}
			i += n - 1
		case quote != 0:
			s.add(c)
		case c == '"' || c == '\'':
			quote = c
			s.add()
		case isSpace(c):
			s.end()
		default:
			s.add(c)
		}
	}
	if quote != 0 {
		return nil, errQuote
	}
	s.end()
	return s.words, nil
}

var cEscapes = map[byte]byte{'a': '\a', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t', 'v': '\v', 's': ' ', '\\': '\\', '"': '"', '\'': '\''}

var numericEscape = pattern(`^\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3}))`)

// unescape adds what the escape at the start of text stands for, and returns its length.
func (s *splitter) unescape(text string) (int, error) {
	if len(text) == 1 {
		return 0, errEscape
	}
	if c, ok := cEscapes[text[1]]; ok {
		s.add(c)
		return 2, nil
	}
	m := numericEscape().FindStringSubmatch(text)
	if m == nil {
		s.add('\\')
		return 1, nil
	}
	var code rune
	if m[4] != "" {
		_, _ = fmt.Sscanf(m[4], "%o", &code)
	} else {
		_, _ = fmt.Sscanf(m[1]+m[2]+m[3], "%x", &code)
	}
	// One byte that is no character of its own cannot be written to a file of HCL.
	if code == 0 || !utf8.ValidRune(code) || m[2]+m[3] == "" && code >= utf8.RuneSelf {
		return 0, fmt.Errorf("the escape %s is not a character that HCL can contain", m[0])
	}
	s.add([]byte(string(code))...)
	return len(m[0]), nil
}

// noExec are commands that exist only inside of a shell.
var noExec = map[string]bool{}

func init() {
	for _, w := range strings.Fields(`! . : [[ { alias break builtin case cd command continue declare eval exec exit export for function
		getopts hash if jobs let local popd pushd read readonly return select set shift source time times trap type typeset ulimit umask
		unalias unset until wait while`) {
		noExec[w] = true
	}
}

// script prepares a shell command. A single simple command gets exec, so that the program itself
// and not a shell gets the signals.
func script(command string) string {
	command = strings.TrimSpace(command)
	first, _, _ := strings.Cut(command, " ")
	if command == "" || strings.ContainsAny(command, ";&|()<>`\n") || strings.ContainsAny(first, "=\t#") || noExec[first] {
		return command
	}
	return "exec " + command
}
