package engine

import (
	"fmt"

	"github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/shared/rules/plural"
)

// verdict says in one sentence how the cluster is.
func verdict(l *hosts.List) string {
	voters := 0
	for _, h := range l.Hosts {
		if h.Votes() {
			voters++
		}
	}
	switch {
	case l.Voting < l.Quorum:
		return fmt.Sprintf("NO MAJORITY: %d of %d voting hosts answer, and %d are needed. Nothing can be written. Start the others; if they are lost for good, see 'dynast hosts recover'.", l.Voting, voters, l.Quorum)
	case !l.Writable:
		return "There is no leading host at the moment. Writes wait until the hosts have chosen one."
	case voters == 1:
		return "Only one host votes. Its loss is the loss of everything: add two hosts."
	case voters == 2:
		return "Two hosts vote. The loss of either stops writes, so this is less safe than one host: add a third."
	case l.Voting < voters:
		return fmt.Sprintf("Serving. %d of %d voting hosts %s silent.", voters-l.Voting, voters, plural.Are(voters-l.Voting))
	}
	return fmt.Sprintf("Serving. All %d voting hosts answer; %d may be lost.", voters, (voters-1)/2)
}
