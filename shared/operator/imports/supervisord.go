package imports

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// supervisor is a configuration of supervisord, from all its files.
type supervisor struct {
	out  *output
	opts Options
	// read are the files that were read, to notice a file that includes itself.
	read []string
	// shared are the settings of [supervisord] that apply to all programs.
	shared   []directive
	programs []program
	groups   []section
}

type program struct {
	section
	dir string
	// fcgi is for a program whose standard input is a socket.
	fcgi bool
}

func (o *output) supervisord(files []File, opts Options) error {
	s := &supervisor{out: o, opts: opts}
	for _, f := range files {
		if err := s.file(f); err != nil {
			return err
		}
	}
	for _, p := range s.programs {
		if err := s.program(p); err != nil {
			return err
		}
	}
	for _, g := range s.groups {
		if err := s.group(g); err != nil {
			return err
		}
	}
	return nil
}

func (s *supervisor) file(f File) error {
	path := filepath.Join(f.Dir, filepath.Base(f.Name))
	if slices.Contains(s.read, path) {
		return nil
	}
	s.read = append(s.read, path)
	sections, err := supervisordSections(f)
	if err != nil {
		return err
	}
	for _, sec := range sections {
		kind, name, _ := strings.Cut(sec.name, ":")
		name = strings.TrimSpace(name)
		switch kind {
		case "program", "fcgi-program":
			sec.name = name
			s.programs = append(s.programs, program{sec, f.Dir, kind == "fcgi-program"})
		case "group":
			sec.name = name
			s.groups = append(s.groups, sec)
		case "include":
			err = s.include(sec, f)
		case "supervisord":
			s.main(sec, f.Dir)
		case "eventlistener":
			s.unused(sec, "dynast sends no events to programs. Use 'dynast events' in a service of your own.")
		case "unix_http_server", "inet_http_server", "supervisorctl", "rpcinterface":
			s.unused(sec, "not needed. The commands of dynast use the admin socket in the data directory.")
		default:
			s.unused(sec, "dynast does not know this section.")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unused adds a comment about every directive of a section.
func (s *supervisor) unused(sec section, text string) {
	about := "[" + sec.name + "]"
	for _, d := range sec.directives {
		about += " " + d.String()
	}
	s.out.notes.add(about, text)
}

func (s *supervisor) include(sec section, f File) error {
	for _, d := range sec.directives {
		if d.name != "files" {
			s.out.notes.add("[include] "+d.String(), "dynast does not know this directive.")
			continue
		}
		for _, pattern := range strings.Fields(d.value) {
			x := expander{at: d.at, values: map[string]string{"here": f.Dir}}
			expanded, err := x.expand(pattern)
			if err != nil {
				return err
			}
			if s.opts.Glob == nil || dynamic(expanded) {
				s.out.notes.add("[include] files="+pattern, "these files were not read. Import them too.")
				continue
			}
			files, err := s.opts.Glob(f.Dir, expanded)
			if err != nil {
				return d.at.errorf("include %s: %v", pattern, err)
			}
			var names []string
			for _, inner := range files {
				names = append(names, filepath.Base(inner.Name))
				if err := checkText(inner); err != nil {
					return err
				}
				if err := s.file(inner); err != nil {
					return err
				}
			}
			s.out.notes.add("[include] files="+pattern, fmt.Sprintf("these files were read: %s.", orNone(names)))
		}
	}
	return nil
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// main reads the section [supervisord].
func (s *supervisor) main(sec section, here string) {
	for _, d := range sec.directives {
		switch d.name {
		case "environment", "directory", "umask":
			d.value = strings.ReplaceAll(d.value, "%(here)s", strings.ReplaceAll(here, "%", "%%"))
			s.shared = append(s.shared, d)
		case "user":
			s.out.notes.add("[supervisord] "+d.String(), "set the user in the unit that starts dynast.")
		case "minfds", "minprocs":
			s.out.notes.add("[supervisord] "+d.String(), "set the limit in the unit that starts dynast, or in limits { } of a service.")
		default:
			s.out.notes.add("[supervisord] "+d.String(), "not needed by dynast.")
		}
	}
}

func (s *supervisor) group(g section) error {
	for _, d := range g.directives {
		if d.name != "programs" {
			s.out.notes.add("[group:"+g.name+"] "+d.String(), priorityText)
			continue
		}
		for _, name := range members(d.value) {
			member := s.out.find(name)
			if member == nil {
				return d.at.errorf("the group %q names the program %q, which does not exist", g.name, name)
			}
			member.notes.add("[group:"+g.name+"]", "dynast has no groups. Give the names of the services to a command, for example 'dynast restart NAME NAME'.")
		}
	}
	return nil
}

// members splits the list of programs of a group.
func members(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || unicode.IsSpace(r) })
}

const priorityText = "dynast starts services in the order of needs and after, and stops them in reverse. Add the names there if the order matters."

// supervisordTexts are comments about directives without a counterpart.
var supervisordTexts = map[string]string{
	"priority":                priorityText,
	"process_name":            "not needed. The instances are called NAME/1, NAME/2 and so on.",
	"stdout_logfile":          outputText,
	"stderr_logfile":          outputText,
	"redirect_stderr":         oneFileText,
	"stderr_logfile_maxbytes": oneFileText,
	"stderr_logfile_backups":  oneFileText,
	"stopasgroup":             "dynast sends the stop signal to the main process only. After stop { timeout } it kills the whole process tree.",
	"killasgroup":             "not needed. dynast always kills the whole process tree.",
	"stdout_capture_maxbytes": eventText,
	"stderr_capture_maxbytes": eventText,
	"stdout_events_enabled":   eventText,
	"stderr_events_enabled":   eventText,
	"stdout_syslog":           syslogText,
	"stderr_syslog":           syslogText,
	"serverurl":               "not needed. Programs use the environment variable DYNAST_ENDPOINTS.",
	"socket":                  "dynast passes sockets as file descriptor 3 and following (LISTEN_FDS), not as standard input. Add listen \"NAME\" { address = \"...\" } if the program supports that.",
	"socket_backlog":          socketText,
	"socket_owner":            socketText,
	"socket_mode":             socketText,
}

const (
	outputText  = "the output goes to a file in the data directory. Read it with 'dynast logs NAME'."
	oneFileText = "not needed. Both outputs go to the same file."
	eventText   = "dynast sends no events to programs."
	syslogText  = "dynast does not write to syslog. Pipe the output of the program into logger if you need it."
	socketText  = "dynast has no setting for this property of a socket."
)

func (s *supervisor) program(p program) error {
	svc, err := s.out.add(p.name, p.at)
	if err != nil {
		return err
	}
	last := map[string]directive{}
	for _, d := range p.directives {
		if old, ok := last[d.name]; ok {
			svc.notes.add(old.String(), "this directive is repeated. The last one counts.")
		}
		last[d.name] = d
	}
	c := &programImport{service: svc, first: 0, instances: 1, expander: expander{values: map[string]string{
		"here": p.dir, "program_name": p.name, "group_name": p.name, "host_node_name": expression("$(hostname)"),
	}}}
	for _, g := range s.groups {
		for _, d := range g.directives {
			if d.name == "programs" && slices.Contains(members(d.value), p.name) {
				c.values["group_name"] = g.name
			}
		}
	}
	if _, ok := last["command"]; !ok {
		return p.at.errorf("the program %q has no command", p.name)
	}
	if err := c.numbers(last); err != nil {
		return err
	}
	// supervisord restarts a program that ends with an unexpected exit status.
	svc.set("restart", "on-failure")
	for _, d := range append(slices.Clone(s.shared), p.directives...) {
		if current, ok := last[d.name]; ok && current.at != d.at && d.name != "environment" {
			continue
		}
		c.expander.at = d.at
		if err := c.directive(d); err != nil {
			return err
		}
	}
	if p.fcgi {
		svc.notes.add("[fcgi-program:"+p.name+"]", "supervisord gives the socket to the program as standard input, and dynast does not. See socket.")
	}
	return nil
}

// programImport converts one program.
type programImport struct {
	*service
	expander
	first, instances int
}

// numbers reads numprocs and numprocs_start, which expansions need.
func (c *programImport) numbers(last map[string]directive) error {
	for name, target := range map[string]*int{"numprocs": &c.instances, "numprocs_start": &c.first} {
		d, ok := last[name]
		if !ok {
			continue
		}
		n, err := strconv.Atoi(d.value)
		if err != nil || n < 0 {
			return d.at.errorf("%s: %q is not a whole number from 0", name, d.value)
		}
		*target = n
	}
	number := strconv.Itoa(c.first)
	if c.instances > 1 {
		c.number = "$INSTANCE"
		if c.first != 1 {
			c.number = fmt.Sprintf("$((INSTANCE %+d))", c.first-1)
		}
		number = expression(c.number)
	}
	c.values["process_num"] = number
	c.values["numprocs"] = strconv.Itoa(c.instances)
	return nil
}

func (c *programImport) directive(d directive) error {
	if text, ok := supervisordTexts[d.name]; ok {
		c.notes.add(d.String(), text)
		return nil
	}
	value, err := c.expand(d.value)
	if err != nil {
		return err
	}
	switch d.name {
	case "command":
		words, err := splitShlex(value)
		if err != nil || len(words) == 0 {
			return d.at.errorf("command %q: %v", d.value, orEmpty(err))
		}
		c.commands = [][]string{words}
	case "environment":
		return c.environment(d, value)
	case "directory":
		c.setDir(value)
	case "user":
		c.setText("user", value, d.name, d.value)
	case "umask":
		mask, err := umask(value)
		if err != nil {
			return d.at.errorf("umask: %v", err)
		}
		c.set("umask", mask)
	case "numprocs":
		if c.instances != 1 {
			c.set("instances", c.instances)
		}
	case "numprocs_start":
		c.notes.add(d.String(), "instances of dynast count from 1. Where a directive uses %(process_num)s, the difference is taken into account.")
	case "stopsignal":
		name, err := signal(value)
		if err != nil {
			return d.at.errorf("stopsignal: %v", err)
		}
		c.setSignal("stop.signal", name, d.String())
	case "exitcodes":
		if value != "0" {
			c.notes.add(d.String(), "dynast takes every exit status other than 0 for a failure. Let the program exit with 0 when it has succeeded.")
		} else {
			c.notes.add(d.String(), "not needed. Exit status 0 is the only success.")
		}
	case "stdout_logfile_maxbytes":
		n, err := size(value)
		if err != nil {
			return d.at.errorf("%s: %v", d.name, err)
		}
		if n == 0 {
			c.notes.add(d.String(), "dynast always bounds the output. Set log { max_size } to as much as the disk allows.")
		} else {
			c.set("log.max_size", sizeText(n))
		}
	case "startsecs", "startretries", "stopwaitsecs", "stdout_logfile_backups":
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 || n > 1e9 {
			return d.at.errorf("%s: %q is not a whole number from 0", d.name, d.value)
		}
		c.count(d, n)
	case "autostart", "autorestart":
		return c.automatic(d, strings.ToLower(value))
	default:
		c.notes.add(d.String(), "dynast does not know this directive.")
	}
	return nil
}

func orEmpty(err error) error {
	if err == nil {
		return fmt.Errorf("there is no program")
	}
	return err
}

func (c *programImport) count(d directive, n int) {
	duration, _ := seconds(n)
	switch d.name {
	case "startsecs":
		if n == 0 {
			c.notes.add(d.String(), "not needed. Without ready { } an instance is ready as soon as it runs.")
		} else {
			c.set("ready.delay", duration)
		}
	case "startretries":
		c.set("backoff.limit", n+1)
	case "stopwaitsecs":
		if n == 0 {
			c.notes.add(d.String(), `set stop { signal = "KILL" } to stop the program without a grace period.`)
		} else {
			c.set("stop.timeout", duration)
		}
	case "stdout_logfile_backups":
		c.set("log.max_backups", n)
	}
}

func (c *programImport) automatic(d directive, value string) error {
	on := slices.Contains([]string{"true", "yes", "on", "1"}, value)
	off := slices.Contains([]string{"false", "no", "off", "0"}, value)
	switch {
	case d.name == "autostart" && on:
		c.notes.add(d.String(), "not needed. Every service starts with 'dynast up'.")
	case d.name == "autostart" && off:
		c.disable(d.String())
	case d.name == "autorestart" && on:
		c.set("restart", "always")
	case d.name == "autorestart" && off:
		c.set("restart", "never")
	case d.name == "autorestart" && value == "unexpected":
		c.set("restart", "on-failure")
	default:
		return d.at.errorf("%s: %q is not a boolean", d.name, d.value)
	}
	return nil
}

// disable is for a program that the other supervisor does not start by itself.
func (s *service) disable(directive string) {
	s.set("instances", 0)
	s.notes.add(directive, "the service has no instances, so it does not start. Set instances to start it.")
}

var environmentPair = pattern(`^[\s,]*([^\s=,]+)\s*=\s*("(?:[^"\\]|\\.)*"|'[^']*'|[^\s,"']*)`)

// environment reads NAME="value",NAME='value',NAME=value, as supervisord does.
func (c *programImport) environment(d directive, text string) error {
	for rest := text; strings.Trim(rest, " \t\r\n,") != ""; {
		m := environmentPair().FindStringSubmatch(maskMarks(rest))
		if m == nil {
			return d.at.errorf("environment: %q is not NAME=\"VALUE\"", strings.TrimSpace(rest))
		}
		whole := rest[:len(m[0])]
		name, quotedValue, _ := strings.Cut(strings.TrimLeft(whole, " \t\r\n,"), "=")
		rest = rest[len(m[0]):]
		if rest != "" && !strings.ContainsRune(", \t\r\n", rune(rest[0])) {
			return d.at.errorf("environment: %q follows a value without a comma", rest)
		}
		value, err := splitShlex(strings.TrimSpace(quotedValue))
		if err != nil || len(value) > 1 {
			return d.at.errorf("environment: the value of %s is not quoted correctly", strings.TrimSpace(name))
		}
		name = strings.TrimSpace(name)
		if dynamic(name) {
			return d.at.errorf("environment: a name cannot contain an expansion")
		}
		c.setEnv(name, strings.Join(value, ""))
	}
	return nil
}

// maskMarks replaces shell expressions by letters of the same length, so that a pattern does not
// see what is in them.
func maskMarks(s string) string {
	b := []byte(s)
	for i := 0; i < len(b); i++ {
		if isMark(b[i]) {
			end := i + 1 + strings.IndexByte(s[i+1:], b[i])
			for ; i < end; i++ {
				b[i] = 'x'
			}
			b[end] = 'x'
		}
	}
	return string(b)
}

// expander replaces the expansions %(NAME)s of supervisord.
type expander struct {
	at     place
	values map[string]string
	// number is the shell expression for process_num, or empty if it is a constant.
	number string
}

var expansion = pattern(`%(?:%|\(([^)]*)\)(0?[0-9]*)([sd])|)`)

var environmentName = pattern(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (x *expander) expand(text string) (string, error) {
	var failed error
	out := expansion().ReplaceAllStringFunc(text, func(found string) string {
		m := expansion().FindStringSubmatch(found)
		if found == "%%" {
			return "%"
		}
		name, width := m[1], m[2]
		if env, ok := strings.CutPrefix(name, "ENV_"); ok && environmentName().MatchString(env) && width == "" {
			return expression("${" + env + "}")
		}
		value, ok := x.values[name]
		switch {
		case !ok:
			if failed == nil {
				failed = x.at.errorf("the expansion at %q is not known", excerpt(text, found))
			}
			return ""
		case width == "" || len(width) > 3:
			return value
		case dynamic(value):
			return expression("$(printf '%" + width + "d' " + x.number + ")")
		}
		if n, err := strconv.Atoi(value); err == nil {
			return fmt.Sprintf("%"+width+"d", n)
		}
		return value
	})
	return out, failed
}

// excerpt returns a part of text that begins with found.
func excerpt(text, found string) string {
	_, rest, _ := strings.Cut(text, found)
	if r := []rune(rest); len(r) > 20 && found == "%" {
		rest = string(r[:20])
	} else if found != "%" {
		rest = ""
	}
	return found + rest
}
