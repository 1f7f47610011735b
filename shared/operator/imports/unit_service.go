package imports

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// serviceUnit converts a unit with the suffix .service.
type serviceUnit struct {
	*service
	unit    *unit
	oneshot bool
	edges   []edge
	// capabilities are the ones that the program may have. nil means all.
	capabilities map[string]bool
}

// defaultStopTimeout is that of systemd. The default of dynast is shorter.
const defaultStopTimeout = 90 * time.Second

func (o *output) serviceUnit(u *unit) (*serviceUnit, error) {
	s, err := o.add(u.stem, u.at())
	if err != nil {
		return nil, err
	}
	x := &serviceUnit{service: s, unit: u}
	if u.template {
		s.notes.add(u.name, "a template. Set instances; %i has become the number of the instance ($INSTANCE). Import NAME@INSTANCE.service for an instance with another name.")
	}
	s.set("restart", "never")
	s.set("stop.timeout", defaultStopTimeout)
	if !u.user {
		s.set("dir", "/")
	}
	if err := x.all(); err != nil {
		return nil, err
	}
	if len(s.commands) == 0 {
		return nil, u.at().errorf("there is no ExecStart")
	}
	x.dropCapabilities()
	return x, nil
}

func (x *serviceUnit) all() error {
	for _, name := range []string{"Unit", "Service"} {
		all := x.unit.directives(name)
		for i, d := range all {
			again := slices.ContainsFunc(all[i+1:], func(e directive) bool { return e.name == d.name })
			if again && !listDirectives().MatchString(d.name) {
				x.notes.add(d.String(), "this directive is repeated. The last one counts.")
				continue
			}
			if err := x.directive(d); err != nil {
				return err
			}
		}
	}
	for _, d := range x.unit.directives("Install") {
		x.notes.add(d.String(), installText)
	}
	for _, d := range x.unit.others("Unit", "Service", "Install") {
		x.notes.add(d.String(), unknownText)
	}
	return nil
}

func (x *serviceUnit) directive(d directive) error {
	for _, convert := range []func(directive) (bool, error){x.program, x.environment, x.lifecycle, x.limits} {
		if done, err := convert(d); done || err != nil {
			return err
		}
	}
	switch d.name {
	case "After", "Before", "Wants", "Requires", "Requisite", "BindsTo":
		for _, target := range strings.Fields(d.value) {
			x.edges = append(x.edges, edge{d, x.literal(target)})
		}
	case "Description":
		x.notes.add(d.name, d.value)
	default:
		x.notes.add(d.String(), unitText(d))
	}
	return nil
}

// literal expands specifiers, for comments and names.
func (x *serviceUnit) literal(text string) string {
	if expanded := x.specifiers(text); !dynamic(expanded) {
		return expanded
	}
	return text
}

// program converts the directives with commands.
func (x *serviceUnit) program(d directive) (bool, error) {
	switch d.name {
	case "ExecStart":
		return true, x.execStart(d)
	case "ExecReload":
		return true, x.execReload(d)
	case "ExecStartPre", "ExecCondition":
		x.notes.add(d.String(), `put it in front of the program in script, or in a service of its own with restart = "never" that this one names in after.`)
	case "ExecStartPost":
		x.notes.add(d.String(), "put it in a service of its own that needs this one.")
	case "ExecStop", "ExecStopPost":
		x.notes.add(d.String(), "dynast stops a program with the signal of stop { }. Let the program do this when it gets the signal.")
	default:
		return false, nil
	}
	return true, nil
}

// execPrefixes are the characters in front of a program, in any order.
const execPrefixes = "-@:+!|"

func (x *serviceUnit) execStart(d directive) error {
	commands, err := x.commandLines(d)
	if err != nil {
		return err
	}
	x.commands = append(x.commands, commands...)
	return nil
}

// commandLines splits the value of an Exec directive into commands and their words.
func (x *serviceUnit) commandLines(d directive) ([][]string, error) {
	raw, err := splitUnit(strings.ReplaceAll(d.value, `\;`, `"\\;"`))
	if err != nil {
		return nil, d.at.errorf("%s: %v", d.name, err)
	}
	var commands [][]string
	for len(raw) > 0 {
		end := slices.Index(raw, ";")
		line := raw
		if end >= 0 {
			line, raw = raw[:end], raw[end+1:]
		} else {
			raw = nil
		}
		for i, w := range line {
			if w == `\;` {
				line[i] = ";"
			}
		}
		if len(line) == 0 {
			return nil, d.at.errorf("%s: there is no program in front of a semicolon", d.name)
		}
		words, err := x.commandLine(d, line)
		if err != nil {
			return nil, err
		}
		commands = append(commands, words)
	}
	return commands, nil
}

func (x *serviceUnit) commandLine(d directive, line []string) ([]string, error) {
	path := strings.TrimLeft(line[0], execPrefixes)
	prefixes := line[0][:len(line[0])-len(path)]
	if path == "" {
		return nil, d.at.errorf("%s: there is no program", d.name)
	}
	about := d.name + "=" + line[0]
	rest := line[1:]
	for _, p := range prefixes {
		switch p {
		case '-':
			x.notes.add(about+" (-)", "dynast counts a failure of this program. Let it exit with 0 if a failure does not matter.")
		case '@':
			if len(rest) == 0 {
				return nil, d.at.errorf("%s: the prefix @ wants a name for the program", d.name)
			}
			if path == rest[0] || strings.HasSuffix(path, "/"+rest[0]) {
				rest = rest[1:]
				continue
			}
			x.notes.add(about+" (@), "+rest[0], `dynast has no setting for the name that a program sees as its own. Use script with 'exec -a NAME' of bash if the name matters.`)
			rest = rest[1:]
		case '+', '!':
			x.notes.add(about+" ("+string(p)+")", "dynast starts the program with user and group. Remove them from the block if the program needs the privileges.")
		}
	}
	if strings.Contains(prefixes, "|") {
		words := []string{"/bin/sh", "-c"}
		return append(words, strings.Join(append([]string{path}, rest...), " ")), nil
	}
	words := []string{x.specifiers(path)}
	for _, w := range rest {
		if !strings.Contains(prefixes, ":") {
			w = unitVariables(w)
		}
		words = append(words, x.specifiers(w))
	}
	return words, nil
}

var (
	wholeVariable = pattern(`^\$([A-Za-z_][A-Za-z0-9_]*)$`)
	unitVariable  = pattern(`\$\$|\$\{[A-Za-z_][A-Za-z0-9_]*\}`)
)

// unitVariables marks the variables in a word as systemd finds them: $NAME is split into words and
// is a word of its own; ${NAME} can be a part of a word.
func unitVariables(word string) string {
	if wholeVariable().MatchString(word) {
		return bareExpression(word)
	}
	return unitVariable().ReplaceAllStringFunc(word, func(found string) string {
		if found == "$$" {
			return "$"
		}
		return expression(found)
	})
}

var killSignal = pattern(`^-(?:s|n)?(.+)$`)

func (x *serviceUnit) execReload(d directive) error {
	commands, err := x.commandLines(d)
	if err != nil {
		return err
	}
	if x.attrs["reload.signal"] != nil || x.attrs["reload.exec"] != nil || len(commands) != 1 {
		x.notes.add(d.String(), "a reload has one command. Put all of them into one script.")
		return nil
	}
	words := commands[0]
	mainPID := func(w string) bool { return strings.Contains(w, "MAINPID") && dynamic(w) }
	if base := words[0][strings.LastIndexByte(words[0], '/')+1:]; base == "kill" && mainPID(words[len(words)-1]) {
		name := "TERM"
		if len(words) > 2 {
			if m := killSignal().FindStringSubmatch(strings.Join(words[1:len(words)-1], "")); m != nil {
				name = m[1]
			}
		}
		sig, err := signal(name)
		if err != nil {
			return d.at.errorf("%s: %v", d.name, err)
		}
		x.setSignal("reload.signal", sig, d.String())
		return nil
	}
	if slices.ContainsFunc(words, mainPID) {
		x.notes.add(d.String(), "dynast does not set MAINPID. Use reload { signal }, or let the command read the pid from a file.")
		return nil
	}
	if slices.ContainsFunc(words, dynamic) {
		words = []string{"/bin/sh", "-c", "exec " + shellLine(words)}
	}
	x.set("reload.exec", words)
	return nil
}

// environment converts the directives for what surrounds a program.
func (x *serviceUnit) environment(d directive) (bool, error) {
	value := x.specifiers(d.value)
	switch d.name {
	case "Environment":
		words, err := splitUnit(d.value)
		if err != nil {
			return true, d.at.errorf("Environment: %v", err)
		}
		for _, w := range words {
			name, value, ok := strings.Cut(w, "=")
			if !ok || !environmentName().MatchString(name) {
				return true, d.at.errorf("Environment: %q is not NAME=VALUE", w)
			}
			x.setEnv(name, x.specifiers(value))
		}
	case "EnvironmentFile":
		x.environmentFile(d, value)
	case "WorkingDirectory":
		x.workingDirectory(d, value)
	case "User", "Group":
		x.setText(strings.ToLower(d.name), value, d.name, d.value)
	case "UMask":
		mask, err := umask(d.value)
		if err != nil {
			return true, d.at.errorf("UMask: %v", err)
		}
		x.set("umask", mask)
	default:
		return false, nil
	}
	return true, nil
}

func (x *serviceUnit) environmentFile(d directive, value string) {
	path, optional := strings.CutPrefix(value, "-")
	switch {
	case x.attrs["env_file"] != nil:
		x.notes.add(d.String(), "dynast reads one file. Put the variables into one.")
		return
	case strings.ContainsAny(path, "*?["):
		x.notes.add(d.String(), "dynast reads one file and knows no patterns. Write env_file by hand.")
		return
	case optional:
		x.notes.add(d.String(), "the file has to exist. Create it, or remove env_file.")
	}
	x.setText("env_file", path, d.name, d.value)
}

func (x *serviceUnit) workingDirectory(d directive, value string) {
	path, optional := strings.CutPrefix(value, "-")
	if optional {
		x.notes.add(d.String(), "the directory has to exist.")
	}
	if path == "~" {
		delete(x.attrs, "dir")
		x.notes.add(d.String(), "write the home directory of the user into dir.")
		return
	}
	delete(x.attrs, "dir")
	x.setDir(path)
}

// lifecycle converts the directives about starting, restarting and stopping.
func (x *serviceUnit) lifecycle(d directive) (bool, error) {
	switch d.name {
	case "Type":
		x.unitType(d)
	case "Restart":
		return true, x.restart(d)
	case "RestartSec", "RestartMaxDelaySec", "TimeoutStopSec", "TimeoutSec", "WatchdogSec":
		span, infinite, err := timeSpan(d.value)
		if err != nil {
			return true, d.at.errorf("%s: %v", d.name, err)
		}
		x.duration(d, span, infinite)
	case "StartLimitBurst":
		n, err := strconv.Atoi(d.value)
		if err != nil || n < 0 {
			return true, d.at.errorf("StartLimitBurst: %q is not a whole number from 0", d.value)
		}
		x.set("backoff.limit", n)
	case "KillSignal":
		name, err := signal(d.value)
		if err != nil {
			return true, d.at.errorf("KillSignal: %v", err)
		}
		x.setSignal("stop.signal", name, d.String())
	default:
		return false, nil
	}
	return true, nil
}

func (x *serviceUnit) unitType(d directive) {
	switch d.value {
	case "simple", "exec":
		x.notes.add(d.String(), "not needed. This is the default.")
	case "notify", "notify-reload":
		x.set("ready.notify", true)
		if d.value == "notify-reload" && x.attrs["reload.signal"] == nil && x.attrs["reload.exec"] == nil {
			x.set("reload.signal", "HUP")
		}
	case "oneshot":
		x.oneshot = true
	case "forking":
		x.notes.add(d.String(), "dynast follows the process that it starts. Run the program in the foreground: remove its option for a daemon, or add the one for the foreground.")
	default:
		x.notes.add(d.String(), "dynast has no counterpart. Use ready { } if other services have to wait for this one.")
	}
}

func (x *serviceUnit) restart(d directive) error {
	switch d.value {
	case "no":
		x.set("restart", "never")
	case "always", "on-failure":
		x.set("restart", d.value)
	case "on-abnormal", "on-abort", "on-watchdog":
		x.set("restart", "on-failure")
		x.notes.add(d.String(), "dynast restarts the program after every failure.")
	case "on-success":
		x.set("restart", "always")
		x.notes.add(d.String(), "dynast restarts the program after a failure, too.")
	default:
		return d.at.errorf("Restart: unknown value %q", d.value)
	}
	return nil
}

func (x *serviceUnit) duration(d directive, span time.Duration, infinite bool) {
	stopText := "dynast always kills the process tree after stop { timeout }. Set it as long as the program may need."
	switch {
	case d.name == "WatchdogSec" && span > 0 && !infinite:
		x.set("alive.notify", true)
		x.set("alive.interval", span)
	case d.name == "WatchdogSec":
		x.notes.add(d.String(), "not needed. This is the default.")
	case d.name == "RestartMaxDelaySec" && !infinite && span > 0:
		x.set("backoff.max", span)
	case d.name == "RestartSec" && !infinite && span > 0:
		x.set("backoff.first", span)
		if longest, ok := x.attrs["backoff.max"].(time.Duration); !ok || longest < span {
			x.set("backoff.max", span)
		}
	case strings.HasPrefix(d.name, "Restart"):
		x.notes.add(d.String(), "not needed. The first restart has no delay; backoff { } delays further ones.")
	case infinite || span == 0:
		x.notes.add(d.String(), stopText)
	default:
		x.set("stop.timeout", span)
		if d.name == "TimeoutSec" {
			x.notes.add(d.String(), "dynast uses it for the stop only. A start has no time limit.")
		}
	}
}

var timeUnits = map[string]time.Duration{
	"usec": time.Microsecond, "us": time.Microsecond, "μs": time.Microsecond, "µs": time.Microsecond, "msec": time.Millisecond, "ms": time.Millisecond,
	"seconds": time.Second, "second": time.Second, "sec": time.Second, "s": time.Second, "": time.Second,
	"minutes": time.Minute, "minute": time.Minute, "min": time.Minute, "m": time.Minute,
	"hours": time.Hour, "hour": time.Hour, "hr": time.Hour, "h": time.Hour,
	"days": 24 * time.Hour, "day": 24 * time.Hour, "d": 24 * time.Hour, "weeks": 7 * 24 * time.Hour, "week": 7 * 24 * time.Hour, "w": 7 * 24 * time.Hour,
}

var spanPart = pattern(`^\s*([0-9]{1,9}(?:\.[0-9]{1,6})?)\s*([a-zμµ]*)`)

// timeSpan reads a time span of systemd, for example "1min 30s", "90" or "infinity".
func timeSpan(text string) (span time.Duration, infinite bool, err error) {
	if text == "infinity" {
		return 0, true, nil
	}
	for rest := text; strings.TrimSpace(rest) != ""; {
		m := spanPart().FindStringSubmatch(rest)
		if m == nil {
			return 0, false, fmt.Errorf("%q is not a time span", text)
		}
		unit, ok := timeUnits[m[2]]
		n, err := strconv.ParseFloat(m[1], 64)
		if !ok || err != nil || n*float64(unit) > float64(1<<62-int64(span)) {
			return 0, false, fmt.Errorf("%q is not a time span", text)
		}
		span += time.Duration(n * float64(unit))
		rest = rest[len(m[0]):]
	}
	return span, false, nil
}
