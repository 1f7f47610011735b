package chaos

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dynast-io/dynast/shared/host/proc"
)

// entry is a line of the journal that the programs write. Times are Unix times in nanoseconds.
type entry struct {
	at       int64
	id       proc.Identity
	instance string
	token    string
	what     string
}

// doubled begins an entry of a process that found another one of its instance.
const doubled = "DOUBLE"

func (e entry) String() string {
	return fmt.Sprintf("%d %d %d %s %s %s", e.at, e.id.PID, e.id.StartTime, e.instance, e.token, e.what)
}

// parseEntry parses what String returns.
func parseEntry(line string) (entry, error) {
	f := strings.SplitN(line, " ", 6)
	if len(f) != 6 {
		return entry{}, fmt.Errorf("the journal has the line %q", line)
	}
	e := entry{instance: f[3], token: f[4], what: f[5]}
	var err1, err2, err3 error
	e.at, err1 = strconv.ParseInt(f[0], 10, 64)
	e.id.PID, err2 = strconv.Atoi(f[1])
	e.id.StartTime, err3 = strconv.ParseUint(f[2], 10, 64)
	for _, err := range []error{err1, err2, err3} {
		if err != nil {
			return entry{}, fmt.Errorf("the journal has the line %q: %w", line, err)
		}
	}
	return e, nil
}

// span is a time in which something was under way for a service; an empty name means all.
type span struct {
	service  string
	from, to int64
}

func during(spans []span, service string, from, to int64) bool {
	return slices.ContainsFunc(spans, func(s span) bool {
		return (s.service == "" || s.service == service) && s.from <= to && from <= s.to
	})
}

// kill is a SIGKILL that the run sent to a process of an instance.
type kill struct {
	at       int64
	id       proc.Identity
	instance string
}

// runKey names a run as "ps" does.
type runKey struct {
	instance string
	pid      int
}

// sight is what "ps" said about an instance while a process of it ran.
type sight struct {
	last int64 // time of the last look that saw it
	// exited says that "ps" told an exit before this run. code is -1 if it is unknown.
	exited bool
	code   int
	signal string
}

// traces is all that was recorded about the services in a round.
type traces struct {
	journal []entry
	killed  []kill
	orders  []span // commands about services, with what they caused
	blind   []span // when no leader may have been there
	dead    []span // when all members were dead
	seen    map[runKey]sight
	refused []int64 // when a connection was refused
}

// run is one run of an instance, as the journal tells it.
type run struct {
	entry
	exited int64 // 0 if it did not end by itself
	code   int
	killed int64 // 0 if this package did not kill it
}

func (r run) String() string {
	out := fmt.Sprintf("pid %d from %d", r.id.PID, r.at)
	if r.killed > 0 {
		out += fmt.Sprintf(", killed at %d", r.killed)
	}
	if r.exited > 0 {
		out += fmt.Sprintf(", exit status %d at %d", r.code, r.exited)
	}
	return out
}

// runs returns the runs of every instance in their order.
func (t *traces) runs() map[string][]*run {
	out, by := map[string][]*run{}, map[proc.Identity]*run{}
	for _, e := range t.journal {
		switch {
		case e.what == "start":
			r := &run{entry: e}
			out[e.instance], by[e.id] = append(out[e.instance], r), r
		case strings.HasPrefix(e.what, "exit ") && by[e.id] != nil:
			by[e.id].exited = e.at
			by[e.id].code, _ = strconv.Atoi(strings.TrimPrefix(e.what, "exit "))
		}
	}
	for _, k := range t.killed {
		if r := by[k.id]; r != nil && r.killed == 0 {
			r.killed = k.at
		}
	}
	return out
}

// killedEarly reports whether a program was killed before it could write its first line.
func (t *traces) killedEarly(instance string, from, to int64) bool {
	return slices.ContainsFunc(t.killed, func(k kill) bool {
		return k.instance == instance && from < k.at && k.at < to && !slices.ContainsFunc(t.journal, func(e entry) bool { return e.id == k.id })
	})
}

// unnoted reports whether the end of a run may not be noted. The leader may have died in the moment
// after the start, before it had put the process into the store, and the process before the next
// leader came. Then "ps" tells the exit before that one, or that the status is unknown.
func (t *traces) unnoted(ended *run) bool {
	return during(t.blind, "", ended.at-int64(time.Second), ended.at)
}

// mayBeUnknown reports whether the exit status of a run may be unknown: all members were dead.
func (t *traces) mayBeUnknown(ended *run, next int64) bool {
	return during(t.dead, "", ended.at, next)
}

// wrongs collects findings by their check.
type wrongs map[string][]string

func (w wrongs) add(check, format string, args ...any) {
	w[check] = append(w[check], fmt.Sprintf(format, args...))
}

// checkRuns checks that no instance had two processes, that each start has a reason, and that the
// exit statuses are right.
func checkRuns(t *traces, s *ServiceStats, w wrongs) {
	for _, e := range t.journal {
		switch {
		case strings.HasPrefix(e.what, doubled):
			s.Doubled++
			w.add(CheckInstances, "two processes of one instance: %s", e)
		case strings.HasPrefix(e.what, "error "):
			w.add(CheckInstances, "a program failed: %s", e)
		}
	}
	all := t.runs()
	for _, instance := range slices.Sorted(maps.Keys(all)) {
		s.Runs += len(all[instance])
		service, _, _ := strings.Cut(instance, "/")
		for k, r := range all[instance][1:] {
			before := all[instance][k]
			// If it did not exit by itself, nobody knows when it ended.
			ended := max(before.at, before.exited, t.seen[runKey{instance, before.id.PID}].last)
			ordered := during(t.orders, service, ended, r.at)
			if before.killed == 0 && !ordered && service != roleCoded {
				s.Unexplained++
				w.add(CheckInstances, "%s was restarted without a reason: %s; then %s", instance, before, r)
			}
			if seen := t.seen[runKey{instance, r.id.PID}]; seen.exited {
				t.checkExit(before, r, seen, ordered, s, w)
			}
		}
	}
}

// checkExit compares what "ps" told about the end of a run, while the next one ran.
func (t *traces) checkExit(before, r *run, seen sight, ordered bool, s *ServiceStats, w wrongs) {
	unnoted := t.unnoted(before)
	if seen.code == -1 && seen.signal == "" {
		s.ExitsUnknown++
		switch {
		case t.mayBeUnknown(before, r.at):
		case unnoted:
			s.ExitsNotNoted++
		default:
			s.ExitsWrong++
			w.add(CheckExits, "the exit status of %s is unknown although a member was alive: %s; then %s", r.instance, before, r)
		}
		return
	}
	s.ExitsKnown++
	if during(t.blind, "", before.at, r.at) && !during(t.dead, "", before.at, r.at) {
		s.ExitsOverTakeovers++
	}
	wrong := ""
	switch {
	case seen.signal != "":
		if before.killed == 0 && !ordered && !unnoted && !t.killedEarly(r.instance, before.at, r.at) {
			wrong = fmt.Sprintf("%q, but nothing killed it", seen.signal)
		}
	case unnoted && seen.code != before.code:
		s.ExitsNotNoted++
	case before.exited != 0 && seen.code != before.code:
		wrong = fmt.Sprintf("exit status %d, but it was %d", seen.code, before.code)
	case before.exited == 0 && !unnoted:
		wrong = fmt.Sprintf("exit status %d, but it did not exit by itself", seen.code)
	}
	if wrong != "" {
		s.ExitsWrong++
		w.add(CheckExits, "%s: ps says %s: %s; then %s", r.instance, wrong, before, r)
	}
}

// checkRefused checks that no connection was refused, except while all members were dead and the
// program with the socket too.
func checkRefused(t *traces, s *ServiceStats, w wrongs) {
	holders := t.runs()[roleAnswer+"/1"]
	for _, at := range t.refused {
		held := slices.IndexFunc(holders, func(r *run) bool {
			ended := cmp.Or(r.exited, r.killed, at+1)
			return r.at <= at && at < ended
		})
		switch {
		case !during(t.dead, "", at, at):
			s.Refused++
			w.add(CheckSockets, "%d: a connection was refused although a member was alive", at)
		case held >= 0 && !slices.ContainsFunc(holders[held+1:], func(r *run) bool { return r.at <= at }):
			s.Refused++
			w.add(CheckSockets, "%d: a connection was refused although a program had the socket: %s", at, holders[held])
		default:
			s.RefusedWhileDead++
		}
	}
}

// gaps returns how long instances were without a process after a kill: while there was a leader,
// and while there may have been none.
func (t *traces) gaps() (led, taken []time.Duration) {
	for _, runs := range t.runs() {
		for k, r := range runs[:len(runs)-1] {
			if r.killed == 0 {
				continue
			}
			next := runs[k+1].at
			if during(t.blind, "", r.killed, next) {
				taken = append(taken, time.Duration(next-r.killed))
			} else {
				led = append(led, time.Duration(next-r.killed))
			}
		}
	}
	return led, taken
}

// lines is what the output of the programs contains.
type lines struct {
	last    map[string]uint64 // the last line, by process
	partial map[string]string // lines that SIGKILL may have cut, by process
}

// check reads a line of the output. No line of a process may be missing or repeated, and only its
// last line may be cut.
func (l *lines) check(path, text string, s *ServiceStats, w wrongs) {
	f := strings.Fields(text)
	if len(f) == 0 {
		return
	}
	if len(f) != 3 || !strings.HasSuffix(f[2], ".") {
		l.partial[f[0]] = text
		return
	}
	s.Lines++
	n, err := strconv.ParseUint(f[1], 10, 64)
	if err != nil || n != l.last[f[0]]+1 {
		s.LinesWrong++
		w.add(CheckOutput, "%s: %q follows line %d of its process", path, text, l.last[f[0]])
	}
	if cut, ok := l.partial[f[0]]; ok {
		s.LinesWrong++
		w.add(CheckOutput, "%s: a line was cut: %q", path, cut)
	}
	l.last[f[0]] = n
}

// end checks that the output has all lines that a process has written.
func (l *lines) end(process string, written uint64, s *ServiceStats, w wrongs) {
	s.Processes++
	if have := l.last[process]; have < written {
		s.LinesWrong += int(written - have)
		w.add(CheckOutput, "the output of process %s ends with line %d, but it has written %d", process, have, written)
	}
}
