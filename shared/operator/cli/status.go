package cli

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/spf13/cobra"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/shared/observe/ps"
	"github.com/dynast-io/dynast/shared/observe/tree"
	"github.com/dynast-io/dynast/shared/operator/term"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/services"
)

// The values of clusterStatus.Health.
const (
	healthy  = "healthy"
	degraded = "degraded"
	down     = "down"
)

// clusterStatus is the result of 'dynast status'.
type clusterStatus struct {
	Schema int    `json:"schema"`
	Health string `json:"health"`
	// Problems say why it is not healthy, the most important first.
	Problems []string `json:"problems"`
	Leader   string   `json:"leader"`
	Epoch    uint64   `json:"epoch"`
	Client   string   `json:"client"`
	// InSync is the number of followers in sync, and Followers the wanted number.
	InSync    int `json:"in_sync"`
	Followers int `json:"followers"`
	// Up is the number of instances that are ready or have done their work, of Instances.
	Up        int `json:"instances_up"`
	Instances int `json:"instances"`
}

const (
	// statusWidth is the width of the line in columns.
	statusWidth = 80
	// healthPatience is how long the client address may take to say whether it is healthy.
	healthPatience = 3 * time.Second
)

func (a *App) statusCommand() *cobra.Command {
	var check bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say in one line how the cluster is",
		Long: "The cluster is healthy if all followers are in sync, all services are ready, and writes are accepted. It is\n" +
			"degraded if it serves clients but one of these is missing, and down if no leader answers.",
		Args: cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&check, "check", false, "exit with 1 also if the cluster is degraded, for health checks")
	asJSON := jsonFlag(cmd)
	c := a.WithCluster(cmd)
	c.run(cmd, func(ctx context.Context, cfg *config.Config, _ []string) error {
		s, err := statusOf(ctx, cfg.DataDir)
		if err != nil && !*asJSON {
			return err
		}
		if err := errors.Join(err, printResult(os.Stdout, *asJSON, s)); err != nil {
			return err
		}
		if check && s.Health != healthy {
			return &Error{Code: core.ExitError}
		}
		return nil
	})
	return cmd
}

// Render prints the status in one line.
func (s *clusterStatus) Render(out io.Writer) error {
	var parts []string
	if len(s.Problems) > 0 {
		parts = append(parts, strings.Join(s.Problems, "; "))
	} else {
		parts = append(parts, fmt.Sprintf("epoch %d, %d of %d followers", s.Epoch, s.InSync, s.Followers))
		if s.Instances > 0 {
			parts = append(parts, fmt.Sprintf("%d of %d instances", s.Up, s.Instances))
		}
		parts = append(parts, "clients at "+s.Client)
	}
	line := s.Health + ": " + term.Printable(strings.Join(parts, ", "))
	_, err := fmt.Fprintln(out, ansi.Truncate(line, statusWidth, "…"))
	return err
}

// statusOf looks at the cluster in a data directory. It returns a status in any case. The error says
// why no leader answers.
func statusOf(ctx context.Context, dataDir string) (*clusterStatus, error) {
	s := &clusterStatus{Schema: resultSchema, Health: down}
	dir, err := openDir(dataDir)
	var p picture
	if err == nil {
		p, err = readPicture(ctx, dir, true)
	}
	if err != nil {
		s.Problems = []string{err.Error()}
		return s, err
	}
	s.ofMembers(p.tree)
	s.ofServices(p.services)
	if problem := refused(ctx, s.Client); problem != "" {
		s.problem("%s", problem)
	}
	if dir.ManyHosts() {
		s.ofHosts(ctx, dataDir)
	}
	s.Health = healthy
	if len(s.Problems) > 0 {
		s.Health = degraded
	} else {
		s.Problems = []string{}
	}
	return s, nil
}

func (s *clusterStatus) problem(format string, args ...any) {
	s.Problems = append(s.Problems, fmt.Sprintf(format, args...))
}

func (s *clusterStatus) ofMembers(t *tree.Tree) {
	s.Leader, s.Epoch, s.Client, s.Followers, s.InSync = t.Leader, t.Epoch, t.Client, t.Followers, t.InSync()
	if s.InSync < s.Followers {
		s.problem("%d of %d followers in sync", s.InSync, s.Followers)
	}
}

// ofServices counts the instances of the services that shall run on this host.
func (s *clusterStatus) ofServices(r *ps.Report) {
	if r == nil {
		return
	}
	for _, service := range r.Services {
		if service.Desired != ps.DesiredRunning || service.Elsewhere != "" {
			continue
		}
		for _, i := range service.Instances {
			s.Instances++
			if i.Ready || services.State(i.State) == services.StateDone {
				s.Up++
				continue
			}
			s.problem("%s is %s", i.ID, i.State)
		}
	}
}

func (s *clusterStatus) ofHosts(ctx context.Context, dataDir string) {
	var l hosts.List
	if err := askHosts(ctx, dataDir, hosts.PathList, nil, &l, lookTimeout); err != nil {
		s.problem("the hosts cannot be listed: %v", err)
		return
	}
	if !l.Writable {
		s.problem("no leading host")
	}
	for _, h := range l.Hosts {
		if !h.Reachable {
			s.problem("host %s does not answer", h.Name)
		}
	}
}

// refused asks the client address whether it accepts writes. It returns an empty text if it does, or
// if it can only be asked with a client certificate.
func refused(ctx context.Context, client string) string {
	ctx, cancel := context.WithTimeout(ctx, healthPatience)
	defer cancel()
	// The answer decides nothing but the exit code, so the certificate need not be verified.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	for _, scheme := range []string{"http", "https"} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+client+"/health", nil)
		if err != nil {
			return ""
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			continue
		}
		var answer struct{ Health, Reason string }
		err = json.NewDecoder(io.LimitReader(resp.Body, 1<<16)).Decode(&answer)
		_ = resp.Body.Close()
		switch {
		case err != nil:
			continue
		case strings.Contains(answer.Reason, "NOSPACE"):
			return "writes are refused for lack of space"
		}
		return answer.Reason
	}
	if ctx.Err() != nil {
		return "the address for clients does not answer"
	}
	return ""
}
