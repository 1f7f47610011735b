package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/robfig/cron/v3"
	"github.com/zclconf/go-cty/cty"
	"golang.org/x/sys/unix"
)

// maxArgumentBytes is the kernel's limit for one argument or one environment variable, without
// the zero byte at its end (MAX_ARG_STRLEN).
const maxArgumentBytes = 128<<10 - 1

// namePattern is what a service or a socket may be called: the name is also a directory, and a
// socket's name stands in LISTEN_FDNAMES, which is separated by colons.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// wantName completes the sentence "want ..." for a name.
const wantName = "letters, digits, '.', '_' and '-', at most 64, with a letter or a digit first"

// stringField is a field that holds a text. Its check is not asked about the empty text, which
// means that the field is not set.
func stringField[T any](path, allowed string, valid func(string) error, at func(*T) *string) *field[T] {
	return &field[T]{
		path: path, kind: "text", allowed: allowed,
		parse: func(c *T, s string) error { *at(c) = s; return nil },
		check: func(c *T) error {
			if *at(c) == "" {
				return nil
			}
			if err := checkText(*at(c)); err != nil {
				return err
			}
			return valid(*at(c))
		},
		text: func(c *T) string { return *at(c) },
	}
}

// checkText refuses what cannot be passed to a program or to a worker.
func checkText(s string) error {
	if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
		return errors.New("not valid UTF-8, or it contains a zero byte")
	}
	return nil
}

func checkArgument(s string) error {
	if len(s) > maxArgumentBytes {
		return errors.New("longer than 128KiB, which is the kernel's limit")
	}
	return checkText(s)
}

// listField is a field that holds a list of texts. Its text is a JSON array.
func listField[T any](path, allowed string, valid func([]string) error, at func(*T) *[]string) *field[T] {
	return &field[T]{
		path: path, kind: "list", allowed: allowed,
		convert: func(v cty.Value) (string, error) {
			if t := v.Type(); !t.IsTupleType() && !t.IsListType() {
				return "", errors.New("not a list in square brackets")
			}
			list := []string{}
			for _, e := range v.AsValueSlice() {
				s, err := stringValue(e)
				if err != nil {
					return "", fmt.Errorf("entry %d: %w", len(list)+1, err)
				}
				list = append(list, s)
			}
			if len(list) == 0 {
				return "", errors.New("an empty list")
			}
			return jsonText(list), nil
		},
		parse: func(c *T, s string) error { return fromJSON(s, at(c)) },
		check: func(c *T) error {
			if len(*at(c)) == 0 {
				return nil
			}
			for i, s := range *at(c) {
				if err := checkArgument(s); err != nil {
					return fmt.Errorf("entry %d: %w", i+1, err)
				}
			}
			return valid(*at(c))
		},
		text: func(c *T) string {
			if len(*at(c)) == 0 {
				return ""
			}
			return jsonText(*at(c))
		},
	}
}

// mapField is a field that holds names and texts. Its text is a JSON object.
func mapField[T any](path, allowed string, valid func(map[string]string) error, at func(*T) *map[string]string) *field[T] {
	return &field[T]{
		path: path, kind: "map", allowed: allowed,
		convert: func(v cty.Value) (string, error) {
			if t := v.Type(); !t.IsObjectType() && !t.IsMapType() {
				return "", errors.New("not names and values in braces")
			}
			m := map[string]string{}
			for name, e := range v.AsValueMap() {
				s, err := stringValue(e)
				if err != nil {
					return "", fmt.Errorf("%s: %w", clip(name), err)
				}
				m[name] = s
			}
			if len(m) == 0 {
				return "", nil
			}
			return jsonText(m), nil
		},
		parse: func(c *T, s string) error { return fromJSON(s, at(c)) },
		check: func(c *T) error { return valid(*at(c)) },
		text: func(c *T) string {
			if len(*at(c)) == 0 {
				return ""
			}
			return jsonText(*at(c))
		},
	}
}

func stringValue(v cty.Value) (string, error) {
	v, _ = v.Unmark()
	if !v.IsKnown() || v.IsNull() || v.Type() != cty.String {
		return "", errors.New("not a string in quotes")
	}
	return v.AsString(), nil
}

func jsonText(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(fmt.Sprintf("config: cannot marshal strings: %v", err))
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// fromJSON reads what jsonText wrote. The empty text is the zero value.
func fromJSON[V any](s string, to *V) error {
	var v V
	if s != "" {
		if err := json.Unmarshal([]byte(s), &v); err != nil {
			return errors.New("not a list or an object of texts")
		}
	}
	*to = v
	return nil
}

func checkCommand(argv []string) error {
	if argv[0] == "" {
		return errors.New("the program is empty")
	}
	return nil
}

func checkNames(names []string) error {
	for i, n := range names {
		if !namePattern.MatchString(n) {
			return fmt.Errorf("%q cannot be the name of a service", clip(n))
		}
		if slices.Contains(names[:i], n) {
			return fmt.Errorf("%q is given twice", n)
		}
	}
	return nil
}

func checkOwner(s string) error {
	if len(s) > 256 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == ':' || r == '/' || r == 0x7f }) {
		return errors.New("not a name or a number")
	}
	return nil
}

// ownVariables are set by dynast for each instance.
var ownVariables = []string{"SERVICE", "INSTANCE", "DYNAST_INSTANCE_TOKEN", "DYNAST_ENDPOINTS",
	"LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "NOTIFY_SOCKET", "WATCHDOG_USEC", "DYNAST_HOST", "FENCE"}

func checkEnv(env map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if slices.Contains(ownVariables, name) {
			return fmt.Errorf("dynast itself sets %s", name)
		}
		if err := checkVariable(name, env[name]); err != nil {
			return err
		}
	}
	return nil
}

func checkVariable(name, value string) error {
	if name == "" || strings.ContainsAny(name, "= \t\r\n") {
		return fmt.Errorf("%q cannot be the name of a variable", clip(name))
	}
	if err := checkArgument(name + "=" + value); err != nil {
		return fmt.Errorf("%s: %w", clip(name), err)
	}
	return nil
}

func umaskField[T any](path string, at func(*T) *int) *field[T] {
	return &field[T]{
		path: path, kind: "umask", allowed: `an octal number in quotes from "0000" to "0777", for example "0022"`,
		parse: func(c *T, s string) error {
			if s == "" {
				*at(c) = -1
				return nil
			}
			n, err := strconv.ParseUint(s, 8, 31)
			if err != nil {
				return errors.New("not an octal number")
			}
			*at(c) = int(n)
			return nil
		},
		check: func(c *T) error { return within(*at(c), -1, 0o777) },
		text: func(c *T) string {
			if *at(c) < 0 {
				return ""
			}
			return fmt.Sprintf("%04o", *at(c))
		},
	}
}

func boolField[T any](path string, at func(*T) *bool) *field[T] {
	return &field[T]{
		path: path, kind: "bool", allowed: "true or false",
		convert: boolText,
		parse: func(c *T, s string) error {
			b, err := strconv.ParseBool(s)
			if err != nil {
				return errors.New("neither true nor false")
			}
			*at(c) = b
			return nil
		},
		check: func(*T) error { return nil },
		text:  func(c *T) string { return strconv.FormatBool(*at(c)) },
	}
}

func boolText(v cty.Value) (string, error) {
	if v.Type() != cty.Bool {
		return "", errors.New("neither true nor false (write it without quotes)")
	}
	return strconv.FormatBool(v.True()), nil
}

// signalField accepts a signal with or without SIG, in any case, and stores it without.
func signalField[T any](path string, required bool, at func(*T) *string) *field[T] {
	return &field[T]{
		path: path, kind: "signal", allowed: `the name of a signal without SIG, for example "TERM"`,
		parse: func(c *T, s string) error { *at(c) = strings.TrimPrefix(strings.ToUpper(s), "SIG"); return nil },
		check: func(c *T) error {
			switch s := *at(c); {
			case s == "" && required:
				return errors.New("empty")
			case s != "" && unix.SignalNum("SIG"+s) == 0:
				return fmt.Errorf("unknown signal%s", suggestion(s, signalNames()))
			}
			return nil
		},
		text: func(c *T) string { return *at(c) },
	}
}

// The words of a placement.
const (
	allHosts = "all"
	oneHost  = "one"
)

// placementField accepts a word or the names of hosts. Its text is empty for all hosts, so that a build
// without this field can read it.
func placementField[T any](path string, at func(*T) *Placement) *field[T] {
	names := func(c *T) *[]string { return &at(c).Names }
	list := listField(path, "", checkHostNames, names)
	return &field[T]{
		path: path, kind: "hosts", allowed: `"all", "one", or the names of hosts, for example ["host-a", "host-b"]`,
		convert: func(v cty.Value) (string, error) {
			if v.Type() != cty.String {
				return list.convert(v)
			}
			if s := v.AsString(); s != allHosts && s != oneHost {
				return "", fmt.Errorf("neither %q nor %q (names of hosts are written in square brackets)", allHosts, oneHost)
			}
			return v.AsString(), nil
		},
		parse: func(c *T, s string) error {
			*at(c) = Placement{One: s == oneHost}
			if s == "" || s == allHosts || s == oneHost {
				return nil
			}
			return list.parse(c, s)
		},
		check: func(c *T) error {
			if p := at(c); p.One && len(p.Names) > 0 {
				return errors.New("both one host and names")
			}
			return list.check(c)
		},
		text: func(c *T) string {
			if at(c).One {
				return oneHost
			}
			return list.text(c)
		},
	}
}

func checkHostNames(names []string) error {
	for i, n := range names {
		if err := CheckHostName(n); err != nil {
			return fmt.Errorf("%q cannot be the name of a host: %w", clip(n), err)
		}
		if slices.Contains(names[:i], n) {
			return fmt.Errorf("%q is given twice", n)
		}
	}
	return nil
}

func signalNames() []string {
	var out []string
	for n := unix.Signal(1); n < 32; n++ {
		if name := unix.SignalName(n); name != "" {
			out = append(out, strings.TrimPrefix(name, "SIG"))
		}
	}
	return out
}

// cpuField holds a number of processors with up to three decimals, in thousandths.
func cpuField[T any](path string, at func(*T) *int) *field[T] {
	const most = 4096
	return &field[T]{
		path: path, kind: "number", allowed: fmt.Sprintf("a number of processors from 0 to %d with at most 3 decimals, for example cpu = 1.5", most),
		convert: func(v cty.Value) (string, error) {
			if v.Type() != cty.Number {
				return "", errors.New("not a number (write it without quotes)")
			}
			// A shorter text suffices to see that the number is too large.
			if f, _ := v.AsBigFloat().Float64(); math.Abs(f) > math.MaxInt32 {
				return "", errors.New("too large or too small")
			}
			return v.AsBigFloat().Text('f', -1), nil
		},
		parse: func(c *T, s string) error {
			whole, decimals, _ := strings.Cut(s, ".")
			if len(decimals) > 3 {
				return errors.New("more than 3 decimals")
			}
			n, err := strconv.Atoi(whole + (decimals + "000")[:3])
			if err != nil {
				return errors.New("not a number")
			}
			*at(c) = n
			return nil
		},
		check: func(c *T) error { return within(*at(c), 0, most*1000) },
		text:  func(c *T) string { return strconv.FormatFloat(float64(*at(c))/1000, 'f', -1, 64) },
	}
}

// listensField holds the blocks listen of a service. Its text is a JSON array of NAME=ADDRESS.
func listensField[T any](path string, at func(*T) *[]Listen) *field[T] {
	return &field[T]{
		path: path, kind: "blocks", allowed: `blocks listen "NAME" { address = "127.0.0.1:8080" }`,
		parse: func(c *T, s string) error {
			var list []string
			if err := fromJSON(s, &list); err != nil {
				return err
			}
			var out []Listen
			for _, text := range list {
				name, address, _ := strings.Cut(text, "=")
				out = append(out, Listen{Name: name, Address: address})
			}
			*at(c) = out
			return nil
		},
		check: func(c *T) error {
			for i, l := range *at(c) {
				if !namePattern.MatchString(l.Name) {
					return fmt.Errorf("%q cannot be the name of a socket", clip(l.Name))
				}
				if slices.ContainsFunc((*at(c))[:i], func(o Listen) bool { return o.Name == l.Name }) {
					return fmt.Errorf("%q is given twice", l.Name)
				}
				if err := checkListenAddress(l.Address); err != nil {
					return fmt.Errorf("%s: %w", l.Name, err)
				}
			}
			return nil
		},
		text: func(c *T) string {
			var list []string
			for _, l := range *at(c) {
				list = append(list, l.Name+"="+l.Address)
			}
			if list == nil {
				return ""
			}
			return jsonText(list)
		},
	}
}

// unixPrefix begins the address of a Unix socket.
const unixPrefix = "unix:"

// maxSocketPath is the longest path of a Unix socket (sun_path, without the zero byte).
const maxSocketPath = 107

func checkListenAddress(s string) error {
	path, isUnix := strings.CutPrefix(s, unixPrefix)
	if !isUnix {
		a, err := parseEndpoint(s)
		if err == nil && a.String() != s {
			return fmt.Errorf("not in the usual form %q", a)
		}
		return err
	}
	switch {
	case !filepath.IsAbs(path):
		return errors.New("the path is not absolute")
	case filepath.Clean(path) != path:
		return fmt.Errorf("not in the usual form %q", unixPrefix+filepath.Clean(path))
	case len(path) > maxSocketPath:
		return fmt.Errorf("the path is longer than %d bytes, which is the kernel's limit", maxSocketPath)
	}
	return checkText(path)
}

func checkURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return errors.New("not a URL")
	case u.Scheme != "http" && u.Scheme != "https":
		return errors.New(`it does not start with "http://" or "https://"`)
	case u.Hostname() == "":
		return errors.New("the host is missing")
	}
	return nil
}

func checkHostPort(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return errors.New("not a host and a port")
	}
	if host == "" {
		return errors.New("the host is missing")
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return errors.New("the port is not a number from 1 to 65535")
	}
	return nil
}

// inCheck puts a field of a check into the table of a service. A nil check has no text.
func inCheck(prefix string, f *field[Check], at func(*Service) **Check) *field[Service] {
	out := &field[Service]{
		path: prefix + f.path, kind: f.kind, number: f.number, allowed: f.allowed, convert: f.convert,
		parse: func(s *Service, text string) error {
			if *at(s) == nil {
				*at(s) = newCheck()
			}
			return f.parse(*at(s), text)
		},
		check: func(s *Service) error {
			if *at(s) == nil {
				return nil
			}
			return f.check(*at(s))
		},
		text: func(s *Service) string {
			if *at(s) == nil {
				return ""
			}
			return f.text(*at(s))
		},
	}
	return out
}

// ofKind makes a field the one that decides the kind of a check. The field has a value only in
// a check of its kind, and there it must have one.
func ofKind(kind CheckKind, f *field[Check]) *field[Check] {
	parse, check, text := f.parse, f.check, f.text
	f.parse = func(c *Check, s string) error {
		if c.Kind != "" && c.Kind != kind {
			return fmt.Errorf("a check is of one kind, and this one has %s already", c.Kind)
		}
		c.Kind = kind
		return parse(c, s)
	}
	f.check = func(c *Check) error {
		if c.Kind != kind {
			return nil
		}
		if text(c) == "" {
			return errors.New("empty")
		}
		return check(c)
	}
	f.text = func(c *Check) string {
		if c.Kind != kind {
			return ""
		}
		return text(c)
	}
	return f
}

// notifyField is the kind of check that has no value besides true.
func notifyField(path string) *field[Check] {
	return ofKind(CheckNotify, &field[Check]{
		path: path, kind: "bool", allowed: "true",
		convert: boolText,
		parse: func(_ *Check, s string) error {
			if s != "true" {
				return errors.New("it can only be true; without the field the check is of another kind")
			}
			return nil
		},
		check: func(*Check) error { return nil },
		text:  func(*Check) string { return "true" },
	})
}

func scheduleField[T any](path string, at func(*T) *string) *field[T] {
	return stringField(path,
		`a cron expression with five fields (minute, hour, day of the month, month, day of the week), for example "*/5 * * * *", or "@hourly", "@daily", "@weekly", "@monthly", "@yearly", "@every 90s"`,
		checkSchedule, at)
}

// checkSchedule refuses what package cron refuses, what makes it panic, and what it would
// silently change or never run.
func checkSchedule(s string) error {
	if rest, zone := strings.CutPrefix(strings.TrimPrefix(s, "CRON_"), "TZ="); zone && !strings.Contains(rest, " ") {
		return errors.New("only a time zone")
	}
	schedule, err := cron.ParseStandard(s)
	if err != nil {
		return fmt.Errorf("not a cron expression (%w)", err)
	}
	if _, every, ok := strings.Cut(s, "@every "); ok {
		if d, err := time.ParseDuration(every); err != nil || d < time.Second || d%time.Second != 0 {
			return errors.New("the interval is not a whole number of seconds")
		}
	}
	// The search covers 5 years, so this start includes a 29th of February.
	if schedule.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return errors.New("there is no such day")
	}
	return nil
}

// AllCapabilities is the word for all capabilities.
const AllCapabilities = "all"

// Capabilities are the names of capabilities(7) without CAP_, in the order of their numbers.
var Capabilities = []string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
	"NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT",
	"SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE",
	"AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
	"PERFMON", "BPF", "CHECKPOINT_RESTORE",
}

// capabilitiesField accepts names with or without CAP_, in any case, and stores them without.
func capabilitiesField[T any](path string, at func(*T) *[]string) *field[T] {
	f := listField(path, `["all"], or names of capabilities without CAP_, for example ["NET_RAW"]`, func(names []string) error {
		for i, n := range names {
			switch {
			case n == AllCapabilities && len(names) > 1:
				return errors.New(`"all" already includes the others`)
			case n != AllCapabilities && !slices.Contains(Capabilities, n):
				return fmt.Errorf("unknown capability %q%s", clip(n), suggestion(n, Capabilities))
			case slices.Contains(names[:i], n):
				return fmt.Errorf("%q is given twice", n)
			}
		}
		return nil
	}, at)
	parse := f.parse
	f.parse = func(c *T, s string) error {
		if err := parse(c, s); err != nil {
			return err
		}
		for i, n := range *at(c) {
			if (*at(c))[i] = strings.TrimPrefix(strings.ToUpper(n), "CAP_"); strings.EqualFold(n, AllCapabilities) {
				(*at(c))[i] = AllCapabilities
			}
		}
		return nil
	}
	return f
}
