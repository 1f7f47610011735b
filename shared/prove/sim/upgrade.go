package sim

import (
	"fmt"
	"strings"
	"time"

	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

// firstBuild is the build that an operator starts. Each upgrade is to another build.
const firstBuild = "sim"

const badSuffix = "-bad"

// bad reports whether processes of a build exit before they have a slot.
func bad(build string) bool { return strings.HasSuffix(build, badSuffix) }

// upgrade asks for another build. The build may be bad, or its time too short.
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

// checkUpgrade checks that no follower is dismissed for another build before enough followers of
// that build are in sync.
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
	p.w.fail("%s dismisses %s before the other build has enough followers in sync: %s", p, e.ID, r)
}
