package services

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// decideAll brings every instance one step closer to what is wanted. It reports whether anything
// changed on which others may depend.
func (c *Core) decideAll() bool {
	c.decided = c.now
	c.roll()
	if c.order == nil {
		c.sort()
	}
	held, changed := c.held(), false
	for _, i := range slices.Clone(c.order) {
		changed = c.decide(i, held) || changed
	}
	return changed
}

// held returns the services that have to run on until others have ended that depend on them and
// are not wanted either.
func (c *Core) held() map[string]bool {
	held := map[string]bool{}
	for _, i := range c.order {
		if i.spec == nil || i.Phase == Idle || c.wanted(i) {
			continue
		}
		for _, names := range [][]string{i.spec.Needs, i.spec.After} {
			for _, name := range names {
				held[name] = true
			}
		}
	}
	return held
}

func (c *Core) decide(i *instance, held map[string]bool) bool {
	switch i.Phase {
	case Idle:
		if i.removed() || c.surplus(i) {
			delete(c.instances, i.ID)
			delete(c.saved, i.ID)
			c.order = nil
			c.do(Forget{ID: i.ID})
			return true
		}
		if c.wanted(i) && c.blocked(i) == "" && c.now >= i.NotBefore {
			c.start(i)
			return true
		}
	case Up:
		if why := c.unwanted(i, held); why != 0 {
			c.end(i, why)
			return true
		}
		if i.PingBy != 0 && c.now >= i.PingBy {
			c.unhealthy(i, fmt.Sprintf("no WATCHDOG=1 for %s", i.spec.Watchdog))
			return true
		}
	case Ending:
		if c.now >= i.StopBy {
			c.tell(i, ToldKilled, "the stop timeout passed")
			i.StopBy = never
			c.save(i)
			// The main process may belong to the tree or not. Its death leads to Clearing.
			c.clear(i)
		}
	}
	return false
}

// never is a time that does not come.
const never = time.Duration(math.MaxInt64)

func (c *Core) start(i *instance) {
	c.runs++
	i.Run = c.runs
	i.Process, i.Ready, i.Reloading, i.AliveMisses, i.PingBy = Process{}, false, false, 0, 0
	i.Why, i.StopBy = 0, 0
	i.Outcome = Unfinished
	i.Fingerprint, i.Generation = i.spec.Fingerprint, c.wishes[i.ID.Service].Generation
	c.setPhase(i, Starting)
	c.do(Start{ID: i.ID, Run: i.Run})
}

// surplus reports whether an instance is beyond the number that is configured.
func (c *Core) surplus(i *instance) bool {
	return i.ID.N > i.spec.Instances && !c.surge(i)
}

// surge reports whether an instance is the additional one of a rolling restart.
func (c *Core) surge(i *instance) bool {
	return i.ID.N == i.spec.Instances+1 && c.wishes[i.ID.Service].Rolling
}

// wanted reports whether an instance should run, apart from what it waits for.
func (c *Core) wanted(i *instance) bool {
	if c.stopping || i.removed() || c.surplus(i) {
		return false
	}
	w := c.wishes[i.ID.Service]
	if w.Stopped || slices.Contains(w.StoppedInstances, i.ID.N) {
		return false
	}
	if i.spec.Scheduled {
		return i.Armed || i.Phase == Up || i.Phase == Starting
	}
	return i.Outcome == Unfinished
}

// unwanted says why a running process has to end now, or 0.
func (c *Core) unwanted(i *instance, held map[string]bool) Why {
	switch {
	case i.spec != nil && !c.wanted(i) && held[i.ID.Service]:
		return 0
	case !c.wanted(i):
		return Wanted
	case i.spec.Fingerprint != i.Fingerprint, c.cycles(i):
		return Cycled
	}
	return 0
}

// cycles reports whether an instance has to be restarted now because an operator wants it.
func (c *Core) cycles(i *instance) bool {
	w := c.wishes[i.ID.Service]
	if i.Generation >= w.Generation {
		return false
	}
	if !w.Rolling {
		return true
	}
	if c.instances[ID{i.ID.Service, i.spec.Instances + 1}] == nil {
		return false
	}
	for _, other := range c.those(i.ID.Service, 0) {
		if other != i && c.wanted(other) && !other.isReady() {
			return false
		}
	}
	return true
}

// roll begins and ends rolling restarts.
func (c *Core) roll() {
	for _, name := range c.names {
		s, w := c.specs[name], c.wishes[name]
		if !w.Rolling {
			continue
		}
		if s.RollTimeout > 0 && w.RollBy == 0 {
			w.RollBy = c.now + s.RollTimeout
			c.setWish(name, w)
		}
		behind, settled := false, true
		for n := 1; n <= s.Instances; n++ {
			i := c.instances[ID{name, n}]
			if !c.wanted(i) {
				continue
			}
			behind = behind || i.Phase != Idle && i.Generation < w.Generation
			settled = settled && i.isReady() && i.Generation >= w.Generation
		}
		surge := c.instances[ID{name, s.Instances + 1}]
		switch {
		case settled:
			w.Rolling, w.RollBy = false, 0
			c.setWish(name, w)
		case c.hinders(s, w, behind) != nil:
			c.abort(c.hinders(s, w, behind), w)
		case surge == nil && behind:
			surge = c.ensure(ID{name, s.Instances + 1})
			c.save(surge)
		}
	}
}

// hinders returns the instance that ends a rolling restart, or nil: one that has failed for good,
// the additional one at its first failure, or any that does not become ready in time.
func (c *Core) hinders(s *Spec, w Wish, behind bool) *instance {
	late := w.RollBy != 0 && c.now >= w.RollBy
	for n := s.Instances + 1; n >= 1; n-- {
		i := c.instances[ID{s.Name, n}]
		switch {
		case i == nil || c.stopped(i):
		case i.Outcome == Failed,
			n > s.Instances && i.Failures > 0 && !i.Ready && behind,
			late && c.wanted(i) && !i.isReady():
			return i
		}
	}
	return nil
}

// abort ends a rolling restart because of an instance. The others go on as they are.
func (c *Core) abort(because *instance, w Wish) {
	why := because.Reason
	if because.Phase == Idle && because.Outcome == Unfinished {
		why = cmp.Or(c.blocked(because), why)
	}
	if because.Outcome == Failed {
		why = fmt.Sprintf("%s has failed: %s", because.ID, why)
	} else if w.RollBy != 0 && c.now >= w.RollBy {
		why = strings.TrimSuffix(fmt.Sprintf("%s did not become ready in %s: %s", because.ID, because.spec.RollTimeout, why), ": ")
	} else {
		why = fmt.Sprintf("%s did not become ready: %s", because.ID, why)
	}
	for _, i := range c.those(because.ID.Service, 0) {
		i.Generation = w.Generation
		c.save(i)
	}
	w.Rolling, w.RollBy, w.RollFailed = false, 0, why
	c.setWish(because.ID.Service, w)
	c.tell(because, ToldAborted, why)
}

// blocked says for what an instance waits, or "".
func (c *Core) blocked(i *instance) string {
	for _, name := range i.spec.Needs {
		if why := c.notReady(name); why != "" {
			return why
		}
	}
	for _, name := range i.spec.After {
		if why := c.notDone(name); why != "" {
			return why
		}
	}
	return ""
}

// notReady says why a service is not ready, or "".
func (c *Core) notReady(name string) string {
	s := c.specs[name]
	if s == nil {
		return fmt.Sprintf("needs %s, which is not configured", name)
	}
	for n := 1; n <= s.Instances; n++ {
		i := c.instances[ID{name, n}]
		switch {
		case i.isReady():
		case i.Outcome == Failed:
			return fmt.Sprintf("needs %s, which has failed", i.ID)
		case !c.wanted(i):
			return fmt.Sprintf("needs %s, which does not run", i.ID)
		default:
			return fmt.Sprintf("waits until %s is ready", i.ID)
		}
	}
	if s.Instances == 0 {
		return fmt.Sprintf("needs %s, which has no instances", name)
	}
	return ""
}

// notDone says why a service has not succeeded and is not ready, or "".
func (c *Core) notDone(name string) string {
	s := c.specs[name]
	if s == nil {
		return fmt.Sprintf("starts after %s, which is not configured", name)
	}
	for n := 1; n <= s.Instances; n++ {
		i := c.instances[ID{name, n}]
		switch {
		case i.Outcome == Succeeded:
		case i.Outcome == Failed:
			return fmt.Sprintf("starts after %s, which has failed", i.ID)
		case s.Restart == Always && i.isReady():
		case !c.wanted(i):
			return fmt.Sprintf("starts after %s, which does not run", i.ID)
		default:
			return fmt.Sprintf("waits until %s has succeeded", i.ID)
		}
	}
	return ""
}

// Wake returns when Tick is due, or false if nothing depends on the time.
func (c *Core) Wake() (time.Duration, bool) {
	wake := never
	for _, w := range c.wishes {
		if w.Rolling && w.RollBy != 0 {
			wake = min(wake, w.RollBy)
		}
	}
	for _, i := range c.instances {
		switch {
		case i.Phase == Idle && i.NotBefore > c.decided && c.wanted(i):
			// It can be in the past: an event that does not matter brought the time forward.
			wake = min(wake, i.NotBefore)
		case i.Phase == Ending:
			wake = min(wake, i.StopBy)
		case i.Phase == Up && i.PingBy != 0:
			wake = min(wake, i.PingBy)
		}
	}
	return wake, wake != never
}
