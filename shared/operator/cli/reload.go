package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/rules/plural"
)

// reloadPatience bounds a reload, which waits until the followers confirm.
const reloadPatience = 10 * time.Second

func (a *App) reloadCommand() *cobra.Command {
	var asJSON, dry bool
	w := waiting{action: member.ActionReload}
	cmd := &cobra.Command{
		Use:   "reload [NAME[/N]...]",
		Short: "Apply the changed configuration, or make services reload theirs",
		Long: "The leader reads its configuration again: the file and the flags that 'dynast up' got, even if another process\n" +
			"leads now. Fields that can change at run time have their new values when the command returns. The command lists\n" +
			"the fields that need a restart. The flags of this command only say where the cluster is.\n" +
			"SIGHUP to the leader does the same, but without an answer.\n" +
			"Of the services, only those are restarted whose processes have to change; --dry-run lists them.\n" +
			"With names, the services or instances get their reload signal or command, and nothing is read again.",
		Args: cobra.ArbitraryArgs,
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only say what would change")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	c := a.WithCluster(cmd)
	cmd.ValidArgsFunction = c.completeService
	c.run(cmd, func(ctx context.Context, cfg *config.Config, names []string) error {
		if len(names) == 0 {
			return Reload(ctx, cfg.DataDir, dry, asJSON, os.Stdout)
		}
		if err := without(cmd, true, "is for the configuration, not for the reload of a service", "dry-run", "json"); err != nil {
			return err
		}
		return Act(ctx, cfg.DataDir, &wire.ActRequest{Action: string(w.action), Names: names}, w, os.Stdout)
	})
	return cmd
}

// Reload makes the leader of a data directory reload its configuration, and prints the result.
func Reload(ctx context.Context, dataDir string, dry, asJSON bool, out io.Writer) error {
	dir, err := openDir(dataDir)
	if err != nil {
		return err
	}
	var r *wire.ReloadResponse
	var invalid error
	err = askAtLength(ctx, dir, reloadPatience, func(ctx context.Context, a *admin) (err error) {
		r, err = a.Reload(ctx, &wire.ReloadRequest{DryRun: dry})
		if status.Code(err) == codes.InvalidArgument {
			invalid = &Error{Code: ExitUsage, Err: fmt.Errorf("reload: nothing was changed: %s", status.Convert(err).Message())}
			return nil
		}
		return err
	})
	if err == nil {
		err = invalid
	}
	if err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(out).Encode(reloadedOf(r))
	}
	return renderReload(out, r, dry)
}

// reloaded is what 'reload --json' prints.
type reloaded struct {
	Schema    int          `json:"schema"`
	File      string       `json:"file"`
	Changed   []change     `json:"changed"`
	Restart   []change     `json:"needs_restart"`
	Services  serviceNames `json:"services"`
	Informed  uint32       `json:"informed"`
	Followers uint32       `json:"followers"`
}

// serviceNames are the services that a reload changes.
type serviceNames struct {
	Added     []string `json:"added"`
	Removed   []string `json:"removed"`
	Restarted []string `json:"restarted"`
	Changed   []string `json:"changed"`
}

type change struct {
	Field  string `json:"field"`
	Before string `json:"before"`
	After  string `json:"after"`
}

func reloadedOf(r *wire.ReloadResponse) reloaded {
	changes := func(cs []*wire.ConfigChange) []change {
		out := []change{}
		for _, c := range cs {
			out = append(out, change{c.Field, c.Before, c.After})
		}
		return out
	}
	return reloaded{Schema: 1, File: r.File, Changed: changes(r.Changed), Restart: changes(r.Restart),
		Services: serviceNames{list(r.ServicesAdded), list(r.ServicesRemoved), list(r.ServicesRestarted), list(r.ServicesChanged)}, Informed: r.Informed, Followers: r.Followers}
}

// list returns an empty list in place of none.
func list(names []string) []string { return append([]string{}, names...) }

func renderReload(out io.Writer, r *wire.ReloadResponse, dry bool) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	switch services := len(r.ServicesAdded) + len(r.ServicesRemoved) + len(r.ServicesRestarted) + len(r.ServicesChanged); {
	case len(r.Changed)+services == 0:
		fmt.Fprintf(w, "no change: %s\n", r.File)
	case dry:
		fmt.Fprintf(w, "nothing was changed; a reload of %s would do this:\n", r.File)
	default:
		fmt.Fprintf(w, "reloaded %s\n", r.File)
	}
	for _, line := range []struct {
		text  string
		names []string
	}{
		{"service added", r.ServicesAdded}, {"service removed", r.ServicesRemoved},
		{"service restarted", r.ServicesRestarted}, {"service changed, runs on", r.ServicesChanged},
	} {
		for _, name := range line.names {
			fmt.Fprintf(w, "  %s\t%s\n", line.text, name)
		}
	}
	for _, c := range r.Changed {
		fmt.Fprintf(w, "  changed\t%s\t%s -> %s\n", c.Field, shown(c.Before), shown(c.After))
	}
	for _, c := range r.Restart {
		fmt.Fprintf(w, "  needs a restart\t%s\t%s stays, not %s\n", c.Field, shown(c.Before), shown(c.After))
	}
	if r.Informed < r.Followers {
		fmt.Fprintf(w, "not confirmed yet by %d of %s; they get the change as soon as they answer\n", r.Followers-r.Informed, plural.Count(r.Followers, "follower"))
	}
	return w.Flush()
}

// shown makes an empty value visible.
func shown(s string) string {
	if s == "" {
		return `""`
	}
	return s
}

// askAtLength is like askOnce, but for a request that may take long.
func askAtLength(ctx context.Context, dir *datadir.Dir, patience time.Duration, f func(context.Context, *admin) error) error {
	whole, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return askOnce(ctx, dir, func(context.Context, *admin) error {
		a, err := dialAdmin(dir)
		if err != nil {
			return err
		}
		defer a.close()
		return f(whole, a)
	})
}
