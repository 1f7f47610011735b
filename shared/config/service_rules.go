package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"
)

// checkServices adds an error for each field of a service that is not allowed.
func (c *Config) checkServices(e *Error) {
	for i := range c.Services {
		s := &c.Services[i]
		if !namePattern.MatchString(s.Name) {
			e.add(nil, "%sservice %q: invalid name; want %s", s.origin(), clip(s.Name), wantName)
		}
		if !utf8.ValidString(s.Source) {
			e.add(nil, "service %q: the place of its block is not valid UTF-8", clip(s.Name))
		}
		for _, f := range serviceFields {
			if err := f.check(s); err != nil {
				e.add(nil, "%s%s.%s = %s: %v; want %s", s.origin(), s.Name, f.path, clip(f.text(s)), err, f.allowed)
			}
		}
		for _, x := range []struct {
			block string
			check *Check
		}{{"ready", s.Ready}, {"alive", s.Alive}} {
			if x.check != nil && (x.check.Kind == "" || !slices.Contains(kindsOf(x.block), string(x.check.Kind))) {
				e.add(nil, "%s%s.%s: it does not say how to check; want one of %s", s.origin(), s.Name, x.block, strings.Join(kindsOf(x.block), ", "))
			}
		}
	}
}

// origin begins a message about a service with the place of its block.
func (s *Service) origin() string {
	if s.Source == "" {
		return ""
	}
	return s.Source + ": "
}

// serviceConflict is a violated rule between fields of services. paths[0] is the field that is
// most likely wrong.
type serviceConflict struct {
	service int
	paths   []string
	text    string
}

// serviceRules collects the violated rules.
type serviceRules struct {
	config *Config
	byName map[string]int // the first service of each name
	names  []string
	found  []serviceConflict
}

// serviceConflicts checks the rules between the fields of services. Each field is valid by
// itself.
func (c *Config) serviceConflicts() []serviceConflict {
	if len(c.Services) == 0 {
		return nil
	}
	r := &serviceRules{config: c, byName: map[string]int{}}
	for i, s := range c.Services {
		if first, twice := r.byName[s.Name]; twice {
			r.broken(i, nil, "service %q: given twice%s; want another name for each service", s.Name, r.at(first))
			continue
		}
		r.byName[s.Name] = i
		r.names = append(r.names, s.Name)
	}
	for i := range c.Services {
		r.alone(i)
		r.dependencies(i)
	}
	r.addresses()
	r.cycles()
	return r.found
}

func (r *serviceRules) broken(service int, paths []string, format string, args ...any) {
	r.found = append(r.found, serviceConflict{service, paths, fmt.Sprintf(format, args...)})
}

// at names the place of another service in a message.
func (r *serviceRules) at(service int) string {
	if source := r.config.Services[service].Source; source != "" {
		return " (" + source + ")"
	}
	return ""
}

// alone checks the rules that need no other service.
func (r *serviceRules) alone(i int) {
	s := &r.config.Services[i]
	switch hasCommand, hasScript := len(s.Command) > 0, s.Script != ""; {
	case hasCommand && hasScript:
		r.broken(i, []string{"script", "command"}, "%s: both command and script are given; want one of them", s.Name)
	case !hasCommand && !hasScript:
		r.broken(i, []string{"command", "script"}, "%s: there is no program; want command = [\"PROGRAM\", \"ARGUMENT\"], or script = \"...\" for a shell", s.Name)
	}
	if s.Reload.Signal != "" && len(s.Reload.Command) > 0 {
		r.broken(i, []string{"reload.exec", "reload.signal"}, "%s.reload: both signal and exec are given; want one of them", s.Name)
	}
	if s.Schedule != "" && s.Restart == RestartAlways {
		r.broken(i, []string{"restart", "schedule"}, "%s.restart = %q: a service with a schedule is a task, which ends; want %q or %q",
			s.Name, s.Restart, RestartOnFailure, RestartNever)
	}
	if s.Backoff.First > s.Backoff.Max {
		r.broken(i, []string{"backoff.first", "backoff.max"}, "%s.backoff.first = %s: longer than %s.backoff.max = %s; want first to be at most max",
			s.Name, duration(s.Backoff.First), s.Name, duration(s.Backoff.Max))
	}
}

// dependencies checks that the services that one needs exist and can become ready.
func (r *serviceRules) dependencies(i int) {
	s := &r.config.Services[i]
	for _, list := range []struct {
		path  string
		names []string
	}{{"needs", s.Needs}, {"after", s.After}} {
		for _, name := range list.names {
			on, exists := r.byName[name]
			switch {
			case !exists:
				r.broken(i, []string{list.path}, "%s.%s: there is no service %q%s; want the names of services in this file",
					s.Name, list.path, name, suggestion(name, r.names))
			case list.path == "needs" && r.config.Services[on].Schedule != "":
				r.broken(i, []string{list.path}, "%s.needs: %q has a schedule%s and is never ready; want services without a schedule",
					s.Name, name, r.at(on))
			case !s.Hosts.within(r.config.Services[on].Hosts):
				r.broken(i, []string{list.path, "hosts"}, "%s.%s: %q%s does not run on every host on which %s runs, so %s could never start there; "+
					"want services with hosts = \"all\", or with all the names of %s.hosts", s.Name, list.path, name, r.at(on), s.Name, s.Name, s.Name)
			}
		}
	}
}

// within reports whether a service with another placement runs on each host on which one with this
// placement does.
func (p Placement) within(other Placement) bool {
	switch {
	case other.One:
		return false
	case len(other.Names) == 0:
		return true
	case p.One || len(p.Names) == 0:
		return false
	}
	return !slices.ContainsFunc(p.Names, func(name string) bool { return !slices.Contains(other.Names, name) })
}

// cycles reports each cycle of dependencies once, with its path.
func (r *serviceRules) cycles() {
	const (
		fresh = iota
		active
		done
	)
	state := make([]int, len(r.config.Services))
	var path []int
	var visit func(i int)
	visit = func(i int) {
		state[i] = active
		path = append(path, i)
		s := &r.config.Services[i]
		for _, name := range append(slices.Clone(s.Needs), s.After...) {
			on, exists := r.byName[name]
			switch {
			case !exists:
			case state[on] == fresh:
				visit(on)
			case state[on] == active:
				r.cycle(path[slices.Index(path, on):])
			}
		}
		path = path[:len(path)-1]
		state[i] = done
	}
	for i := range state {
		if state[i] == fresh {
			visit(i)
		}
	}
}

// cycle reports a cycle: each service of the path depends on the next one, and the last on the
// first.
func (r *serviceRules) cycle(path []int) {
	const most = 20 // steps in the message
	var steps []string
	for k, i := range path {
		s, on := &r.config.Services[i], r.config.Services[path[(k+1)%len(path)]].Name
		verb := "needs"
		if !slices.Contains(s.Needs, on) {
			verb = "is after"
		}
		steps = append(steps, fmt.Sprintf("%s %s %s", s.Name, verb, on))
	}
	if n := len(steps); n > most {
		steps = append(steps[:most-1:most-1], fmt.Sprintf("... %d more ...", n-most), steps[n-1])
	}
	first := &r.config.Services[path[0]]
	list := "needs"
	if !slices.Contains(first.Needs, r.config.Services[path[1%len(path)]].Name) {
		list = "after"
	}
	r.broken(path[0], []string{list}, "the services depend on each other in a circle, so none of them can start: %s; want one of them without the other",
		strings.Join(steps, ", "))
}

// holder is an address and what listens there.
type holder struct {
	addr netip.Addr
	who  string
}

// addresses checks that no two sockets have the same address.
func (r *serviceRules) addresses() {
	c := r.config
	byPort := map[uint16][]holder{}
	paths := map[string]string{}
	for _, path := range []string{"client.listen", "dashboard.listen"} {
		if a, err := netip.ParseAddrPort(byPath[path].text(c)); err == nil {
			byPort[a.Port()] = append(byPort[a.Port()], holder{a.Addr(), c.show(path)})
		}
	}
	for i := range c.Services {
		s := &c.Services[i]
		for _, l := range s.Listen {
			name := fmt.Sprintf("%s.listen.%s", s.Name, l.Name)
			at := []string{listenBlock + "." + l.Name}
			taken := func(who string) {
				r.broken(i, at, "%s.address = %s: this address is already taken by %s; want another one", name, l.Address, who)
			}
			me := fmt.Sprintf("%s%s", name, r.at(i))
			a, err := netip.ParseAddrPort(l.Address)
			if err != nil { // a Unix socket
				if who, ok := paths[l.Address]; ok {
					taken(who)
				}
				paths[l.Address] = me
				continue
			}
			held := byPort[a.Port()]
			if k := slices.IndexFunc(held, func(h holder) bool { return overlap(h.addr, a.Addr()) }); k >= 0 {
				taken(held[k].who)
			} else if c.portsOverlap(l.Address) {
				r.broken(i, at, "%s.address = %s: it is in the range of the members' addresses, %s on %s; want a port outside that range",
					name, l.Address, c.show("member.ports"), c.show("member.host"))
			}
			byPort[a.Port()] = append(held, holder{a.Addr(), me})
		}
	}
}

// overlap reports whether sockets on the same port of two addresses exclude each other. A
// wildcard address includes all others of its family, and [::] those of IPv4 too.
func overlap(a, b netip.Addr) bool {
	includes := func(a, b netip.Addr) bool { return a.IsUnspecified() && (a.Is6() || b.Is4()) }
	return a == b || includes(a, b) || includes(b, a)
}
