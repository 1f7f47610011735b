package imports

import (
	"path/filepath"
	"slices"
	"strings"
)

// unit is a unit file of systemd, with its drop-in files.
type unit struct {
	file     File
	sections []section
	// name has the suffix, stem has not. prefix and instance are the parts around '@'.
	name, stem, suffix, prefix, instance string
	// template is for a unit whose instance has no name, like web@.service.
	template bool
	// user is for a unit of a user's systemd.
	user bool
}

func (u *unit) at() place { return place{u.file.Name, 1} }

func (o *output) systemd(files []File) error {
	units, err := readUnits(files)
	if err != nil {
		return err
	}
	var converted []*serviceUnit
	for _, u := range units {
		if u.suffix != ".service" {
			continue
		}
		x, err := o.serviceUnit(u)
		if err != nil {
			return err
		}
		converted = append(converted, x)
	}
	for _, u := range units {
		if u.suffix == ".service" {
			continue
		}
		x, err := partner(u, converted)
		if err != nil {
			return err
		}
		if u.suffix == ".socket" {
			err = x.socket(u)
		} else {
			err = x.timer(u)
		}
		if err != nil {
			return err
		}
	}
	resolveDependencies(converted, units)
	return nil
}

func readUnits(files []File) ([]*unit, error) {
	var units []*unit
	var dropIns []File
	for _, f := range files {
		if strings.HasSuffix(filepath.Base(f.Dir), ".d") && filepath.Ext(f.Name) == ".conf" {
			dropIns = append(dropIns, f)
			continue
		}
		u, err := newUnit(f)
		if err != nil {
			return nil, err
		}
		units = append(units, u)
	}
	for _, f := range dropIns {
		owner := strings.TrimSuffix(filepath.Base(f.Dir), ".d")
		i := slices.IndexFunc(units, func(u *unit) bool { return u.name == owner })
		if i < 0 {
			return nil, &Error{File: f.Name, Text: "this file belongs to " + owner + ": import both together"}
		}
		sections, err := unitSections(f)
		if err != nil {
			return nil, err
		}
		units[i].sections = append(units[i].sections, sections...)
	}
	return units, nil
}

func newUnit(f File) (*unit, error) {
	u := &unit{file: f, name: filepath.Base(f.Name)}
	u.suffix = filepath.Ext(u.name)
	u.stem = strings.TrimSuffix(u.name, u.suffix)
	if !slices.Contains([]string{".service", ".socket", ".timer"}, u.suffix) {
		return nil, &Error{File: f.Name, Text: "the name of a unit must end with .service, .socket or .timer"}
	}
	prefix, instance, isInstance := strings.Cut(u.stem, "@")
	u.prefix, u.instance = prefix, instance
	if u.template = isInstance && instance == ""; u.template {
		u.stem = prefix
	}
	var err error
	if u.sections, err = unitSections(f); err != nil {
		return nil, err
	}
	for _, d := range u.directives("Install") {
		u.user = u.user || d.name == "WantedBy" && slices.Contains(strings.Fields(d.value), "default.target")
	}
	return u, nil
}

// listDirectives can be repeated. An empty value resets them.
var listDirectives = pattern(`^(Environment|EnvironmentFile|PassEnvironment|UnsetEnvironment|Exec.*|After|Before|Wants|Requires|Requisite|BindsTo|PartOf|Upholds|Conflicts|` +
	`Listen.*|On.*|CapabilityBoundingSet|Documentation|WantedBy|RequiredBy|Also|Alias|Condition.*|Assert.*|.*Paths?|SystemCallFilter|Restrict.*|Device.*|SupplementaryGroups|.*Directory|Sockets|Load.*)$`)

// directives returns the directives of all sections with a name, as far as they have an effect.
func (u *unit) directives(name string) []directive {
	var all []directive
	for _, s := range u.sections {
		if s.name != name {
			continue
		}
		for _, d := range s.directives {
			if d.value == "" {
				all = slices.DeleteFunc(all, func(old directive) bool { return old.name == d.name })
			}
			if d.value != "" || d.name == "CapabilityBoundingSet" {
				all = append(all, d)
			}
		}
	}
	return all
}

// others returns the directives of sections that have none of the names.
func (u *unit) others(names ...string) []directive {
	var all []directive
	for _, s := range u.sections {
		if !slices.Contains(names, s.name) {
			for _, d := range s.directives {
				all = append(all, directive{d.at, "[" + s.name + "] " + d.name, d.value})
			}
		}
	}
	return all
}

// partner returns the service that a socket or timer activates.
func partner(u *unit, services []*serviceUnit) (*serviceUnit, error) {
	want := strings.TrimSuffix(u.name, u.suffix) + ".service"
	for _, d := range append(u.directives("Socket"), u.directives("Timer")...) {
		if d.name == "Service" || d.name == "Unit" {
			want = d.value
		}
	}
	for _, s := range services {
		if s.unit.name == want {
			return s, nil
		}
	}
	// The connections of a socket with Accept=yes each get an instance of a template.
	for _, s := range services {
		if s.unit.template && s.unit.prefix+".service" == want {
			return s, nil
		}
	}
	return nil, &Error{File: u.file.Name, Text: "this unit starts " + want + ": import both together"}
}

// edge says that a unit is ordered after or wants another.
type edge struct {
	directive
	target string
}

var ordering = map[string]bool{"After": true, "Before": true}

// resolveDependencies turns dependencies between imported units into needs and after.
func resolveDependencies(services []*serviceUnit, units []*unit) {
	byName := map[string]*serviceUnit{}
	imported := map[string]bool{}
	for _, u := range units {
		imported[u.name] = true
	}
	for _, s := range services {
		byName[s.unit.name] = s
	}
	later := map[[2]*serviceUnit]bool{}
	link := func(s, target *serviceUnit) {
		later[[2]*serviceUnit{s, target}] = true
		if target.oneshot {
			s.depend("after", target.name)
		} else {
			s.depend("needs", target.name)
		}
	}
	for _, wantOrder := range []bool{true, false} {
		for _, s := range services {
			for _, e := range s.edges {
				if ordering[e.name] != wantOrder {
					continue
				}
				target := byName[e.target]
				switch {
				case target == s:
				case target != nil && e.name == "Before":
					link(target, s)
				case target != nil && (wantOrder || !later[[2]*serviceUnit{target, s}]):
					link(s, target)
				case target != nil:
					s.notes.add(e.name+"="+e.target, "both services start with 'dynast up', and this one first.")
				case imported[e.target]:
					s.notes.add(e.name+"="+e.target, "not needed. The unit is a part of this block.")
				default:
					s.notes.add(e.name+"="+e.target, "this unit was not imported. If systemd keeps it, add it to the unit that starts dynast.")
				}
			}
		}
	}
}
