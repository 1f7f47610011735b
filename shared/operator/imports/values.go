package imports

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// durationText writes a duration without the zeros of Duration.String.
func durationText(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// seconds converts a number of seconds. ok is false if it is negative or too large.
func seconds(n int) (d time.Duration, ok bool) {
	return time.Duration(n) * time.Second, n >= 0 && n <= int(math.MaxInt64/time.Second)
}

// signals are the names by number on Linux (x86 and ARM).
var signals = strings.Fields("HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS")

var signalName = pattern(`^[A-Z][A-Z0-9]*([+-][0-9]+)?$`)

// signal converts a number or a name to a name without SIG.
func signal(text string) (string, error) {
	if n, err := strconv.Atoi(text); err == nil {
		if n < 1 || n > len(signals) {
			return "", fmt.Errorf("there is no signal with the number %d", n)
		}
		return signals[n-1], nil
	}
	name := strings.TrimPrefix(strings.ToUpper(text), "SIG")
	for _, known := range signals {
		if name == known {
			return name, nil
		}
	}
	if strings.HasPrefix(name, "RT") && signalName().MatchString(name) {
		return name, nil
	}
	return "", fmt.Errorf("%q is not the name of a signal", text)
}

var binaryUnits = []string{"B", "KiB", "MiB", "GiB", "TiB"}

// sizeText writes a number of bytes with the largest unit that fits.
func sizeText(n int64) string {
	unit := 0
	for n != 0 && n%1024 == 0 && unit < len(binaryUnits)-1 {
		n /= 1024
		unit++
	}
	return strconv.FormatInt(n, 10) + binaryUnits[unit]
}

var sizePattern = pattern(`^([0-9]+)([KMGT]?)(?:I?B)?$`)

// size reads a number of bytes with an optional unit, which is a power of 1024.
func size(text string) (int64, error) {
	m := sizePattern().FindStringSubmatch(strings.ToUpper(strings.TrimSpace(text)))
	if m == nil {
		return 0, fmt.Errorf("%q is not a size", text)
	}
	factor := map[string]int64{"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}[m[2]]
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil || n > math.MaxInt64/factor {
		return 0, fmt.Errorf("the size %q is too large", text)
	}
	return n * factor, nil
}

var cronNames = map[string]string{
	"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *",
	"@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}

var cronField = pattern(`^[0-9A-Za-z*/,-]+$`)

// cron checks that a text is a cron expression with five fields, or one of its usual names.
func cron(text string) (string, bool) {
	if c, ok := cronNames[strings.ToLower(strings.TrimSpace(text))]; ok {
		return c, true
	}
	fields := strings.Fields(text)
	for _, f := range fields {
		if !cronField().MatchString(f) {
			return "", false
		}
	}
	return strings.Join(fields, " "), len(fields) == 5
}

// every returns the cron expression for an interval, if there is one that never runs early or
// late: the interval divides an hour or a day.
func every(d time.Duration) (string, bool) {
	minutes, hours := int(d/time.Minute), int(d/time.Hour)
	switch {
	case d == time.Minute:
		return "* * * * *", true
	case d >= time.Minute && d%time.Minute == 0 && minutes < 60 && 60%minutes == 0:
		return fmt.Sprintf("*/%d * * * *", minutes), true
	case d == time.Hour:
		return "0 * * * *", true
	case d >= time.Hour && d%time.Hour == 0 && hours < 24 && 24%hours == 0:
		return fmt.Sprintf("0 */%d * * *", hours), true
	case d == 24*time.Hour:
		return "0 0 * * *", true
	}
	return "", false
}

var umaskPattern = pattern(`^(0o)?0*[0-7]{1,3}$`)

// umask checks an octal umask and returns it as text with a leading zero.
func umask(text string) (string, error) {
	if !umaskPattern().MatchString(text) {
		return "", fmt.Errorf("%q is not an octal umask", text)
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(text, "0o"), 8, 32)
	if err != nil {
		return "", fmt.Errorf("%q is not an octal umask", text)
	}
	return fmt.Sprintf("%04o", n), nil
}
