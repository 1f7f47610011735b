package upview

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/observe/events"
	"github.com/dynast-io/dynast/shared/operator/term"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/plural"
)

// width is the number of columns that a line may have.
const width = 80

// About is what the banner says.
type About struct {
	// Version is the version of this build, and Source the configuration file and why it is used.
	Version, Source string
	Config          *config.Config
	// Reach are the flags with which other commands find the cluster, or empty.
	Reach string
	// Brief leaves out all events but those that say whether clients are served. It is for a
	// cluster whose log is on the same terminal.
	Brief bool
}

// View prints to one terminal. Its methods are safe for concurrent use.
type View struct {
	about  About
	out    io.Writer
	style  term.Style
	reader *events.Reader

	mu       sync.Mutex
	begun    bool // the cluster of this view has started
	ready    bool // it has served clients
	whole    bool // it has had enough followers
	stopping bool // a person was told that it stops
}

// New makes a view. It leaves out the events that are already recorded.
func New(about About, style term.Style, out io.Writer) *View {
	v := &View{about: about, out: out, style: style, reader: events.NewReader(about.Config.DataDir)}
	_, _ = v.reader.Next() // Follow reports an error that lasts
	return v
}

// Follow prints events until ctx ends, and then those that are left. It must be called once.
func (v *View) Follow(ctx context.Context) error {
	defer v.reader.Close()
	err := v.reader.Follow(ctx, v.show)
	rest, last := v.reader.Next()
	_ = v.show(rest)
	if err == nil {
		err = last
	}
	return err
}

// Stopping says that a signal to stop has arrived.
func (v *View) Stopping() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.stopping {
		v.stopping = true
		v.line(term.Yellow, "stopping; a second Ctrl-C kills what does not stop by itself")
	}
}

// Killing says that services do not get the time that they have to stop.
func (v *View) Killing(instances []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.line(term.Red, "killing "+strings.Join(instances, ", "))
}

// Ended says that the last process has ended. It says nothing if the cluster never started, because
// then the process itself told why.
func (v *View) Ended(code int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.begun || code == 0 {
		return
	}
	text := fmt.Sprintf("the cluster has ended with exit code %d", code)
	if code > 128 {
		text = fmt.Sprintf("all processes of the cluster were killed (signal %d)", code-128)
	}
	v.line(term.Red, text)
	if dir := v.about.Config.LogDirectory(); dir != "" {
		fmt.Fprintf(v.out, "          the log: %s\n", term.Printable(dir))
	}
}

func (v *View) show(es []events.Event) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, e := range es {
		if e.Kind == events.Started && !v.begun {
			v.begun = true
			v.banner()
			continue
		}
		text := v.text(e)
		if !v.begun || text == "" {
			continue
		}
		colour := term.EventColour(e.Kind)
		if e.Kind == core.Stopping.String() {
			colour = term.Yellow // the person at this terminal may not be the one who stops it
		}
		v.say(e.At.Local().Format("15:04:05"), colour, text)
	}
	return nil
}

// banner says what was started and what a person may do next.
func (v *View) banner() {
	c := v.about.Config
	scheme := "http"
	if c.Client.TLS() {
		scheme = "https"
	}
	page := config.Off
	if c.Dashboard.On() {
		page = "http://" + c.Dashboard.Listen
	}
	log := c.LogDirectory()
	if log == "" {
		log = "on this terminal only"
	}
	var b strings.Builder
	row := func(name, text string) {
		fmt.Fprintf(&b, "  %-9s %s\n", name, term.Printable(text))
	}
	fmt.Fprintf(&b, "%s\n", v.style.Paint(term.Bold, "dynast "+v.about.Version))
	row("config", v.about.Source)
	row("data", c.DataDir)
	row("log", log)
	row("clients", fmt.Sprintf("%s (%s)", c.Client.Listen, scheme))
	row("page", page)
	row("members", fmt.Sprintf("a leader and %s on %s, ports %d-%d", plural.Count(c.Followers, "follower"), c.Member.Host, c.Member.Ports.First, c.Member.Ports.Last))
	if n := len(c.Services); n > 0 {
		row("services", plural.Count(n, "service"))
	}
	row("try", "dynast tree"+v.about.Reach+"   (in another terminal)")
	row("stop", "Ctrl-C, or dynast stop"+v.about.Reach)
	fmt.Fprint(v.out, b.String())
}

// text returns the line for an event, or nothing.
func (v *View) text(e events.Event) string {
	if e.Kind == events.Serving {
		return v.serving(e)
	}
	if e.Kind == events.Stopped {
		v.stopping = false // after 'dynast hosts leave --last' the cluster serves again
	}
	if v.about.Brief {
		return ""
	}
	who := fmt.Sprintf("%s (pid %d)", e.Member, e.PID)
	detail := strings.TrimSpace(e.Detail)
	switch e.Kind {
	case core.LeaderLost.String():
		return fmt.Sprintf("leader %s died: %s", who, detail)
	case core.LeaderSilent.String():
		return fmt.Sprintf("leader %s is killed: %s", who, detail)
	case core.LeaderLeft.String():
		return fmt.Sprintf("leader %s has handed over", who)
	case core.MemberLeft.String():
		return fmt.Sprintf("follower %s has left", who)
	case core.MemberDied.String():
		return fmt.Sprintf("follower %s ended: %s", who, detail)
	case core.MemberSilent.String():
		return fmt.Sprintf("follower %s is killed: %s", who, detail)
	case core.MemberInSync.String():
		return fmt.Sprintf("follower %s is in sync", who)
	case core.Stopping.String():
		if v.stopping {
			return ""
		}
		v.stopping = true
		return "stopping: " + detail
	case core.Degraded.String():
		if !v.whole {
			return "" // no follower is in sync yet
		}
		return "degraded: writes are acknowledged with fewer copies"
	case core.Restored.String():
		if !v.whole {
			v.whole = true
			return ""
		}
		return "no longer degraded"
	case events.Stopped:
		return "stopped"
	case events.Ended:
		return fmt.Sprintf("%s ended: %s", who, detail)
	case core.Spawning.String(), core.MemberStarted.String(), core.MemberJoined.String(), core.MemberLeaving.String(),
		core.TakingOver.String(), core.TookOver.String(), events.Started:
		return "" // another line says how it ended
	}
	return other(e, detail)
}

// serving is the line for a leader that accepts clients.
func (v *View) serving(e events.Event) string {
	if !v.ready {
		v.ready = true
		return "ready: clients at " + v.about.Config.Client.Listen
	}
	if e.Seconds == 0 {
		return fmt.Sprintf("ready: %s (pid %d) leads now", e.Member, e.PID)
	}
	return fmt.Sprintf("ready: %s (pid %d) leads now, after %.1f ms", e.Member, e.PID, e.Seconds*1000)
}

// other is the line for an event that needs no words of its own.
func other(e events.Event, detail string) string {
	kind, service := strings.CutPrefix(e.Kind, events.ServicePrefix)
	kind = strings.ReplaceAll(kind, "_", " ")
	if service {
		name, reason, _ := strings.Cut(detail, ": ")
		if reason != "" {
			reason = ": " + reason
		}
		return fmt.Sprintf("%s %s%s", name, kind, reason)
	}
	if e.Member != "" {
		kind += " " + e.Member
	}
	if detail != "" {
		kind += ": " + detail
	}
	return kind
}

// line prints a line about this moment.
func (v *View) line(colour term.Colour, text string) { v.say(strings.Repeat(" ", 8), colour, text) }

func (v *View) say(at string, colour term.Colour, text string) {
	text = clip(term.Printable(text), width-len(at)-2)
	fmt.Fprintf(v.out, "%s  %s\n", v.style.Paint(term.Dim, at), v.style.Paint(colour, text))
}

// clip shortens a text to a number of columns.
func clip(text string, columns int) string {
	if utf8.RuneCountInString(text) <= columns {
		return text
	}
	return string([]rune(text)[:columns-3]) + "..."
}
