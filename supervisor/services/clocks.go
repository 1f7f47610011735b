package services

import (
	"time"

	"github.com/robfig/cron/v3"

	"github.com/dynast-io/dynast/shared/config"
	rules "github.com/dynast-io/dynast/shared/rules/services"
)

// catchUp is how late a scheduled run may start because no leader was there at its time.
const catchUp = time.Minute

// clocks knows when scheduled services are due. It uses the wall clock, as cron does.
type clocks struct{ all map[string]*clock }

type clock struct {
	schedule cron.Schedule
	next     time.Time
}

func newClocks() *clocks { return &clocks{all: map[string]*clock{}} }

// set replaces the schedules. fired is when each was last due. A run whose time passed while no
// leader was there is due at once, unless it is older than catchUp.
func (c *clocks) set(services []config.Service, fired map[string]time.Time, at time.Time) {
	c.all = map[string]*clock{}
	for _, s := range services {
		schedule, err := cron.ParseStandard(s.Schedule)
		if s.Schedule == "" || err != nil {
			continue // the configuration was checked
		}
		from := at
		if last := fired[s.Name]; !last.IsZero() && last.After(at.Add(-catchUp)) && last.Before(at) {
			from = last
		}
		c.all[s.Name] = &clock{schedule, schedule.Next(from)}
	}
}

// due returns the services that are due, and sets the time of their next run.
func (c *clocks) due(at time.Time) []string {
	var out []string
	for name, k := range c.all {
		if !k.next.IsZero() && !at.Before(k.next) {
			out = append(out, name)
			k.next = k.schedule.Next(at)
		}
	}
	return out
}

// wake returns when the next service is due.
func (c *clocks) wake() (time.Time, bool) {
	var first time.Time
	for _, k := range c.all {
		if !k.next.IsZero() && (first.IsZero() || k.next.Before(first)) {
			first = k.next
		}
	}
	return first, !first.IsZero()
}

// next returns when a service is due, or nil if it has no schedule.
func (c *clocks) next(name string) *time.Time {
	if k := c.all[name]; k != nil && !k.next.IsZero() {
		return &k.next
	}
	return nil
}

// fired starts a scheduled run.
func (m *Manager) fired(name string) {
	if m.desired.Fired == nil {
		m.desired.Fired = map[string]time.Time{}
	}
	m.desired.Fired[name] = time.Now()
	m.saveDesired()
	m.step(rules.Due{Service: name})
}
