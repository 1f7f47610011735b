package imports

import (
	"regexp"
	"strings"
)

// section is a part of an INI file. directives keep their order; a name can occur repeatedly.
type section struct {
	at         place
	name       string
	directives []directive
}

type directive struct {
	at          place
	name, value string
}

// String is how comments show a directive.
func (d directive) String() string { return d.name + "=" + d.value }

var (
	sectionLine   = regexp.MustCompile(`^\[([^\]]+)\]\s*(.*)$`)
	inlineComment = regexp.MustCompile(`\s[;#].*$`)
)

// supervisordSections reads the dialect of Python's ConfigParser with supervisord's settings: a
// line that begins with white space continues the value before it, and " ;" or " #" begins a
// comment.
func supervisordSections(f File) ([]section, error) {
	var sections []section
	for i, line := range strings.Split(string(f.Content), "\n") {
		at := place{f.Name, i + 1}
		indented := line != "" && isSpace(line[0])
		text := strings.TrimSpace(line)
		if text == "" || text[0] == ';' || text[0] == '#' {
			continue
		}
		text = strings.TrimSpace(inlineComment.ReplaceAllString(text, ""))
		if indented && len(sections) > 0 {
			if last := &sections[len(sections)-1]; len(last.directives) > 0 {
				last.directives[len(last.directives)-1].value += "\n" + text
				continue
			}
		}
		if m := sectionLine.FindStringSubmatch(text); m != nil {
			sections = append(sections, section{at: at, name: strings.TrimSpace(m[1])})
			continue
		}
		d, err := parseDirective(at, text, "=:")
		if err != nil {
			return nil, err
		}
		if len(sections) == 0 {
			return nil, at.errorf("%s stands before the first section", d.name)
		}
		last := &sections[len(sections)-1]
		last.directives = append(last.directives, d)
	}
	return sections, nil
}

// unitSections reads a unit file of systemd: a line that ends with a backslash continues on the
// next line, and comments in between are skipped.
func unitSections(f File) ([]section, error) {
	var sections []section
	var joined string
	var start int
	lines := strings.Split(string(f.Content), "\n")
	for i, line := range lines {
		text := strings.TrimSpace(line)
		if text != "" && (text[0] == ';' || text[0] == '#') || text == "" && joined == "" {
			continue
		}
		if joined == "" {
			start = i + 1
		}
		if strings.HasSuffix(text, `\`) && i < len(lines)-1 {
			joined += strings.TrimSuffix(text, `\`) + " "
			continue
		}
		text = strings.TrimSpace(joined + text)
		joined = ""
		at := place{f.Name, start}
		if text == "" {
			continue
		}
		if m := sectionLine.FindStringSubmatch(text); m != nil && m[2] == "" {
			sections = append(sections, section{at: at, name: m[1]})
			continue
		}
		d, err := parseDirective(at, text, "=")
		if err != nil {
			return nil, err
		}
		if len(sections) == 0 {
			return nil, at.errorf("%s stands before the first section", d.name)
		}
		last := &sections[len(sections)-1]
		last.directives = append(last.directives, d)
	}
	if joined != "" {
		return nil, place{f.Name, start}.errorf("the file ends in the middle of a continued line")
	}
	return sections, nil
}

func parseDirective(at place, text, delimiters string) (directive, error) {
	i := strings.IndexAny(text, delimiters)
	if i <= 0 {
		return directive{}, at.errorf("%q is neither a section nor NAME=VALUE", text)
	}
	return directive{at, strings.TrimSpace(text[:i]), strings.TrimSpace(text[i+1:])}, nil
}
