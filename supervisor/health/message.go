package health

import (
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Message is what a program says on the notify socket. The names are those of sd_notify(3).
type Message struct {
	// PID is the sender, as the kernel reports it.
	PID                        int
	Ready, Stopping, Reloading bool
	// Ping is WATCHDOG=1, and Hung is WATCHDOG=trigger.
	Ping, Hung bool
	// Status is STATUS=, without what a terminal cannot show. HasStatus tells an empty one from
	// none.
	Status    string
	HasStatus bool
	// MainPID is MAINPID=, or 0.
	MainPID int
	// Extend is EXTEND_TIMEOUT_USEC=, and WatchdogInterval is WATCHDOG_USEC=. They are 0 if they
	// are not set.
	Extend, WatchdogInterval time.Duration
	// Errno is ERRNO=, or 0.
	Errno int
}

const (
	maxMessageBytes = 4 << 10 // as systemd
	maxStatusRunes  = 256
	maxDuration     = 24 * time.Hour
)

// Parse reads the assignments of a datagram, one a line. It ignores what it does not know. A
// later assignment of a value replaces an earlier one.
func Parse(b []byte) Message {
	var m Message
	// Programs in C may send the end of their string, too.
	for line := range strings.SplitSeq(strings.TrimSuffix(string(b), "\x00"), "\n") {
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		switch name {
		case "READY":
			m.Ready = m.Ready || value == "1"
		case "STOPPING":
			m.Stopping = m.Stopping || value == "1"
		case "RELOADING":
			m.Reloading = m.Reloading || value == "1"
		case "WATCHDOG":
			m.Ping = m.Ping || value == "1"
			m.Hung = m.Hung || value == "trigger"
		case "STATUS":
			m.Status, m.HasStatus = printable(value, maxStatusRunes), true
		case "MAINPID":
			setPositive(&m.MainPID, value)
		case "ERRNO":
			setPositive(&m.Errno, value)
		case "EXTEND_TIMEOUT_USEC":
			setDuration(&m.Extend, value)
		case "WATCHDOG_USEC":
			setDuration(&m.WatchdogInterval, value)
		}
	}
	return m
}

func setPositive(to *int, value string) {
	if n, err := strconv.ParseInt(value, 10, 32); err == nil && n > 0 {
		*to = int(n)
	}
}

func setDuration(to *time.Duration, value string) {
	if usec, err := strconv.ParseUint(value, 10, 64); err == nil && usec > 0 {
		*to = time.Duration(min(usec, uint64(maxDuration/time.Microsecond))) * time.Microsecond
	}
}

// printable makes a text safe for a terminal and bounds its length.
func printable(s string, maxRunes int) string {
	out := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(s, "?"))
	out = strings.TrimSpace(out)
	if r := []rune(out); len(r) > maxRunes {
		out = strings.TrimSpace(string(r[:maxRunes]))
	}
	return out
}
