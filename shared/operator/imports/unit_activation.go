package imports

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

// socket adds the sockets of a unit with the suffix .socket.
func (x *serviceUnit) socket(u *unit) error {
	name := u.name
	for _, d := range u.directives("Socket") {
		if d.name == "FileDescriptorName" {
			name = d.value
		}
	}
	for _, d := range u.directives("Socket") {
		switch d.name {
		case "ListenStream":
			address, err := x.streamAddress(d)
			if err != nil {
				return err
			}
			if address != "" {
				x.listen(d, name, address)
			}
		case "FileDescriptorName", "Service":
		case "Accept":
			on, err := unitBoolean(d)
			if err != nil {
				return err
			}
			if on {
				x.notes.add(d.String(), "dynast starts no process for each connection. The program has to accept connections itself.")
			} else {
				x.notes.add(d.String(), "not needed. This is the default.")
			}
		default:
			x.notes.add(d.String(), "dynast listens on TCP and on Unix sockets, and has no further settings for them.")
		}
	}
	x.otherDirectives(u, "Socket")
	return nil
}

func (x *serviceUnit) listen(d directive, name, address string) {
	valid := strings.Trim(invalidName().ReplaceAllString(name, "-"), "-")
	if valid == "" {
		valid = "socket"
	}
	unique := valid
	for n := 2; slices.ContainsFunc(x.listens, func(l listen) bool { return l.name == unique }); n++ {
		unique = fmt.Sprintf("%s-%d", valid, n)
	}
	if unique != name {
		x.notes.add(d.String(), fmt.Sprintf("the program finds this socket under the name %s, because each needs a name of its own.", unique))
	}
	x.listens = append(x.listens, listen{unique, address})
}

// streamAddress converts the value of ListenStream. The result is empty if there is no
// counterpart.
func (x *serviceUnit) streamAddress(d directive) (string, error) {
	value := x.specifiers(d.value)
	if dynamic(value) {
		x.notes.add(d.String(), "dynast listens on one address for all instances. Add listen by hand.")
		return "", nil
	}
	if strings.HasPrefix(value, "/") {
		return "unix:" + value, nil
	}
	if strings.HasPrefix(value, "@") || strings.HasPrefix(value, "vsock") {
		x.notes.add(d.String(), "dynast does not listen on sockets of this family.")
		return "", nil
	}
	if port, err := strconv.ParseUint(value, 10, 16); err == nil && port > 0 {
		return fmt.Sprintf("[::]:%d", port), nil
	}
	host, port, err := net.SplitHostPort(value)
	n, portErr := strconv.ParseUint(port, 10, 16)
	if err != nil || portErr != nil || n == 0 || net.ParseIP(host) == nil {
		return "", d.at.errorf("ListenStream: %q is neither a port, IP:PORT nor an absolute path", d.value)
	}
	return net.JoinHostPort(host, port), nil
}

// timer adds the schedule of a unit with the suffix .timer.
func (x *serviceUnit) timer(u *unit) error {
	for _, d := range u.directives("Timer") {
		switch d.name {
		case "Unit":
		case "OnCalendar":
			expr, ok := calendar(d.value)
			switch {
			case !ok:
				x.notes.add(d.String(), "this is no cron expression with five fields. Write schedule by hand; until then the program runs at each start.")
			case x.attrs["schedule"] != nil:
				x.notes.add(d.String(), fmt.Sprintf("a service has one schedule. Add a second service with schedule = %q.", expr))
			default:
				x.set("schedule", expr)
			}
		case "OnActiveSec", "OnBootSec", "OnStartupSec", "OnUnitActiveSec", "OnUnitInactiveSec":
			span, _, err := timeSpan(d.value)
			if err != nil {
				return d.at.errorf("%s: %v", d.name, err)
			}
			text := "a schedule has fixed times. Write schedule by hand; until then the program runs at each start."
			if expr, ok := every(span); ok && strings.HasPrefix(d.name, "OnUnit") {
				text = fmt.Sprintf("a schedule has fixed times. schedule = %q comes closest.", expr)
			}
			x.notes.add(d.String(), text)
		case "Persistent":
			x.notes.add(d.String(), "dynast does not make up for runs that were missed while it was down.")
		case "RandomizedDelaySec", "FixedRandomDelay", "RandomizedOffsetSec":
			x.notes.add(d.String(), "dynast starts at the exact time. Let the script sleep if many hosts would start at once.")
		default:
			x.notes.add(d.String(), "not needed. dynast starts at the exact time while it runs.")
		}
	}
	x.otherDirectives(u, "Timer")
	return nil
}

// otherDirectives adds comments about the sections that all units have.
func (x *serviceUnit) otherDirectives(u *unit, own string) {
	for _, d := range u.directives("Unit") {
		switch {
		case d.name == "Description":
			x.notes.add(u.name, d.value)
		case ordering[d.name] || slices.Contains([]string{"Wants", "Requires", "BindsTo", "PartOf"}, d.name):
			x.notes.add(u.name+": "+d.String(), "not needed. The unit is a part of this block.")
		default:
			x.notes.add(u.name+": "+d.String(), unitText(d))
		}
	}
	for _, d := range u.directives("Install") {
		x.notes.add(u.name+": "+d.String(), installText)
	}
	for _, d := range u.others("Unit", "Install", own) {
		x.notes.add(u.name+": "+d.String(), unknownText)
	}
}

var calendarNames = map[string]string{
	"minutely": "* * * * *", "hourly": "0 * * * *", "daily": "0 0 * * *", "weekly": "0 0 * * 1", "monthly": "0 0 1 * *",
	"quarterly": "0 0 1 1,4,7,10 *", "semiannually": "0 0 1 1,7 *", "yearly": "0 0 1 1 *", "annually": "0 0 1 1 *",
}

var (
	calendarDays = pattern(`^[A-Za-z]{3,9}(?:(?:\.\.|,|-)[A-Za-z]{3,9})*,?$`)
	calendarDate = pattern(`^(?:\*-)?([^-~]+)-([^-~]+)$`)
	calendarTime = pattern(`^([^:]+):([^:]+)(?::0{1,2})?$`)
)

// calendar converts a calendar event of systemd to cron. ok is false if cron cannot say it.
func calendar(text string) (expr string, ok bool) {
	if c, ok := calendarNames[strings.ToLower(text)]; ok {
		return c, true
	}
	minute, hour, day, month, weekday := "0", "0", "*", "*", "*"
	for i, part := range strings.Fields(text) {
		if m := calendarTime().FindStringSubmatch(part); m != nil {
			var ok1, ok2 bool
			hour, ok1 = calendarField(m[1], 0, 23)
			minute, ok2 = calendarField(m[2], 0, 59)
			if !ok1 || !ok2 {
				return "", false
			}
		} else if m := calendarDate().FindStringSubmatch(part); m != nil {
			var ok1, ok2 bool
			month, ok1 = calendarField(m[1], 1, 12)
			day, ok2 = calendarField(m[2], 1, 31)
			if !ok1 || !ok2 {
				return "", false
			}
		} else if i == 0 && calendarDays().MatchString(part) {
			if weekday, ok = weekdays(part); !ok {
				return "", false
			}
		} else {
			return "", false
		}
	}
	// cron runs if either of the two matches, and systemd only if both do.
	if text == "" || day != "*" && weekday != "*" {
		return "", false
	}
	return strings.Join([]string{minute, hour, day, month, weekday}, " "), true
}

var calendarItem = pattern(`^([0-9]{1,2})(?:\.\.([0-9]{1,2}))?(?:/([0-9]{1,2}))?$`)

// calendarField converts one field of a calendar event.
func calendarField(text string, lowest, highest int) (string, bool) {
	if text == "*" {
		return "*", true
	}
	var items []string
	for _, item := range strings.Split(text, ",") {
		if step, ok := strings.CutPrefix(item, "*/"); ok {
			item = fmt.Sprintf("%d/%s", lowest, step)
		}
		m := calendarItem().FindStringSubmatch(item)
		if m == nil {
			return "", false
		}
		from, _ := strconv.Atoi(m[1])
		to, step := from, 1
		if m[3] != "" {
			step, _ = strconv.Atoi(m[3])
			to = highest
		}
		if m[2] != "" {
			to, _ = strconv.Atoi(m[2])
		}
		if from < lowest || to > highest || to < from || step < 1 {
			return "", false
		}
		out := strconv.Itoa(from)
		if from == lowest && to == highest {
			out = "*"
		} else if to > from {
			out = fmt.Sprintf("%d-%d", from, to)
		}
		if step > 1 && (to > from || out == "*") {
			out += "/" + strconv.Itoa(step)
		}
		items = append(items, out)
	}
	return strings.Join(items, ","), true
}

var dayNames = []string{"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"}

func dayNumber(name string) int {
	return slices.IndexFunc(dayNames, func(day string) bool {
		return len(name) >= 3 && strings.HasPrefix(day, strings.ToLower(name))
	})
}

// weekdays converts a list of days, for example Mon..Fri,Sun.
func weekdays(text string) (string, bool) {
	var items []string
	for _, item := range strings.Split(strings.TrimSuffix(text, ","), ",") {
		first, last, isRange := strings.Cut(strings.Replace(item, "-", "..", 1), "..")
		from, to := dayNumber(first), dayNumber(first)
		if isRange {
			to = dayNumber(last)
		}
		switch {
		case from < 0 || to < 0:
			return "", false
		case from == to:
			items = append(items, strconv.Itoa(from))
		case from < to:
			items = append(items, fmt.Sprintf("%d-%d", from, to))
		case to == 0:
			// In cron, 7 is Sunday too, but not every implementation allows it at the end of a range.
			items = append(items, fmt.Sprintf("%d-6", from), "0")
		default:
			items = append(items, fmt.Sprintf("%d-6", from), fmt.Sprintf("0-%d", to))
		}
	}
	return strings.Join(items, ","), true
}
