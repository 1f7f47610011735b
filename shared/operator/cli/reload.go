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
	"github.com/dynast-io/dynast/shared/member/wire"
)

// reloadPatience bounds a reload, which waits until the followers confirm.
const reloadPatience = 10 * time.Second

func (a *App) reloadCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Apply the changed configuration to all members, as far as that needs no restart",
		Long: "The leader reads its configuration again: the file and the flags that 'dynast up' got, even if another process\n" +
			"leads now. Fields that can change at run time have their new values when the command returns. The command lists\n" +
			"the fields that need a restart. The flags of this command only say where the cluster is.\n" +
			"SIGHUP to the leader does the same, but without an answer.",
		Args: cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	c := a.WithConfig(cmd)
	c.run(cmd, func(ctx context.Context, cfg *config.Config, _ []string) error {
		return Reload(ctx, cfg.DataDir, asJSON, os.Stdout)
	})
	return cmd
}

// Reload makes the leader of a data directory reload its configuration, and prints the result.
func Reload(ctx context.Context, dataDir string, asJSON bool, out io.Writer) error {
	dir, err := openDir(dataDir)
	if err != nil {
		return err
	}
	var r *wire.ReloadResponse
	var invalid error
	err = askAtLength(ctx, dir, reloadPatience, func(ctx context.Context, a *admin) (err error) {
		r, err = a.Reload(ctx, &wire.ReloadRequest{})
		if status.Code(err) == codes.InvalidArgument {
			invalid = &Error{Code: ExitUsage, Err: fmt.Errorf("reload: nothing is changed: %s", status.Convert(err).Message())}
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
	return renderReload(out, r)
}

// reloaded is what 'reload --json' prints.
type reloaded struct {
	Schema    int      `json:"schema"`
	File      string   `json:"file"`
	Changed   []change `json:"changed"`
	Restart   []change `json:"needs_restart"`
	Informed  uint32   `json:"informed"`
	Followers uint32   `json:"followers"`
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
	return reloaded{Schema: 1, File: r.File, Changed: changes(r.Changed), Restart: changes(r.Restart), Informed: r.Informed, Followers: r.Followers}
}

func renderReload(out io.Writer, r *wire.ReloadResponse) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if len(r.Changed) == 0 {
		fmt.Fprintf(w, "no change: %s\n", r.File)
	} else {
		fmt.Fprintf(w, "reloaded %s\n", r.File)
	}
	for _, c := range r.Changed {
		fmt.Fprintf(w, "  changed\t%s\t%s -> %s\n", c.Field, shown(c.Before), shown(c.After))
	}
	for _, c := range r.Restart {
		fmt.Fprintf(w, "  needs a restart\t%s\t%s stays, not %s\n", c.Field, shown(c.Before), shown(c.After))
	}
	if r.Informed < r.Followers {
		fmt.Fprintf(w, "%d of %d followers have not confirmed yet; they get the change as soon as they answer\n", r.Followers-r.Informed, r.Followers)
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
