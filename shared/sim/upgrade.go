package sim

import (
	"fmt"
	"strings"
	"time"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/roster"
)

// firstBuild is what an operator starts; each upgrade is to another one.
const firstBuild = "sim"

const badSuffix = "-bad"

// bad builds end before they have a slot.
func bad(build string) bool { return strings.HasSuffix(build, badSuffix) }

// upgrade asks for another build, which may be a bad one, or be given too little time.
func (o *operator) upgrade() {
	o.builds++
	build := fmt.Sprint("build", o.builds)
	if o.w.chance(0.3) {
		build += badSuffix
	}
	o.upgradeTo(build, o.w.between(20*time.Millisecond, 2*time.Second))
}

func (o *operator) upgradeTo(build string, patience time.Duration) {
	o.w.count(UpgradeAsked)
	o.ask("upgrade to "+build, func(r *request) core.Event {
		return core.UpgradeRequested{Build: build, Patience: patience, Ref: r}
	})
}

// checkUpgrade: no follower is sent away for another build before as many of that as are
// kept are in sync.
func (p *process) checkUpgrade(e core.Dismiss) {
	if e.Reason != core.ReplacedByBuild {
		return
	}
	r := p.core.Roster()
	fresh := map[string]int{}
	for _, m := range r.Members {
		if m.State == roster.InSync && !m.ByHand && m.ID != e.ID {
			fresh[m.Version]++
		}
	}
	for build, n := range fresh {
		if n >= max(r.Followers, 1) && !bad(build) {
			return
		}
	}
	p.w.fail("%s sends %s away for another build, which is not there: %s", p, e.ID, r)
}
