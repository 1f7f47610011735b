package imports

import (
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
	sectionLine   = pattern(`^\[([^\]]+)\]\s*(.*)$`)
	inlineComment = pattern(`\s[;#].*$`)
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
		text = strings.TrimSpace(inlineComment().ReplaceAllString(text, ""))
		if indented && len(sections) > 0 {
			if last := &sections[len(sections)-1]; len(last.directives) > 0 {
				last.directives[len(last.directives)-1].value += "\n" + text
				continue
			}
		}
		if m := sectionLine().FindStringSubmatch(text); m != nil {
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

// unitSections reads a unit file of systemd.
func unitSections(f File) ([]section, error) {
	var sections []section
	for _, l := range unitLines(f) {
		if m := sectionLine().FindStringSubmatch(l.value); m != nil && m[2] == "" {
			sections = append(sections, section{at: l.at, name: m[1]})
			continue
		}
		d, err := parseDirective(l.at, l.value, "=")
		if err != nil {
			return nil, err
		}
		if len(sections) == 0 {
			return nil, l.at.errorf("%s stands before the first section", d.name)
		}
		last := &sections[len(sections)-1]
		last.directives = append(last.directives, d)
	}
	return sections, nil
}

// unitLines joins the lines of a unit file: one that ends with a backslash continues on the next
// line, and comments in between are skipped. The results have no name.
func unitLines(f File) []directive {
	var lines []directive
	var line directive
	end := func() {
		if line.value = strings.TrimSpace(line.value); line.value != "" {
			lines = append(lines, line)
		}
		line = directive{}
	}
	for i, text := range strings.Split(string(f.Content), "\n") {
		text = strings.TrimSpace(text)
		if text != "" && (text[0] == ';' || text[0] == '#') {
			continue
		}
		if line.value == "" {
			line.at = place{f.Name, i + 1}
		}
		rest, continues := strings.CutSuffix(text, `\`)
		line.value += rest
		if continues {
			line.value += " "
		} else {
			end()
		}
	}
	end()
	return lines
}

func parseDirective(at place, text, delimiters string) (directive, error) {
	i := strings.IndexAny(text, delimiters)
	if i <= 0 {
		return directive{}, at.errorf("%q is neither a section nor NAME=VALUE", text)
	}
	return directive{at, strings.TrimSpace(text[:i]), strings.TrimSpace(text[i+1:])}, nil
}
