package hostsview

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/dynast-io/dynast/shared/member/hosts"
)

// WriteRecovery says where the copy of a host ends and what a recovery from it may lose.
func WriteRecovery(out io.Writer, r *hosts.Recovery, now time.Time) error {
	var b strings.Builder
	if r.NewCluster != "" {
		fmt.Fprintf(&b, "%s has formed the new cluster %s already, in place of %s.\n", r.Name, r.NewCluster, r.Cluster)
		_, err := io.WriteString(out, b.String())
		return err
	}
	fmt.Fprintf(&b, "The copy of this host, %s (%s), in the cluster %s:\n", r.Name, r.Address, r.Cluster)
	fmt.Fprintf(&b, "  ends at revision     %d\n", r.Revision)
	fmt.Fprintf(&b, "  log                  entry %d committed, entry %d applied, term %d\n", r.Committed, r.Applied, r.Term)
	fmt.Fprintf(&b, "  leader last known    %s\n", since(r.LeaderSeen, now, fmt.Sprintf("not since the engine started, %s ago", now.Sub(r.Started).Round(time.Second))))
	fmt.Fprintf(&b, "  log last written     %s\n", since(r.LogWritten, now, "unknown"))
	if len(r.Alarms) > 0 {
		fmt.Fprintf(&b, "  alarms               %s\n", strings.Join(r.Alarms, ", "))
	}
	fmt.Fprintf(&b, "What may be lost: %s.\n\nThe hosts of the old cluster (%d voting hosts answer, %d are needed):\n", r.Missing, r.Answer, r.Needed)
	for _, h := range r.Hosts {
		switch {
		case h.Name == r.Name:
			fmt.Fprintf(&b, "  %s (%s): this one\n", h.Name, h.Address)
		case h.Reachable && h.Status != nil:
			fmt.Fprintf(&b, "  %s (%s): answers; its copy ends at revision %d, entry %d\n", h.Name, h.Address, h.Status.Revision, h.Status.Committed)
		default:
			fmt.Fprintf(&b, "  %s (%s): no answer, last heard %s\n", h.Name, h.Address, since(h.LastContact, now, "never since the engine of this host started"))
		}
	}
	if r.Refused == "" {
		b.WriteString("\nThe new cluster begins with this copy. The other hosts are no part of it, and can never rejoin by mistake: each has to be emptied and to join again.\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func since(t, now time.Time, otherwise string) string {
	if t.IsZero() {
		return otherwise
	}
	return fmt.Sprintf("%s ago (%s)", max(now.Sub(t), 0).Round(time.Second), t.UTC().Format(time.RFC3339))
}
