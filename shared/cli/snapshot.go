package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/restore"
)

func (a *App) snapshotCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "snapshot", Short: "Save, look at and restore snapshots, also those of etcd"}
	cmd.AddCommand(a.snapshotRestoreCommand(), snapshotStatusCommand(), &cobra.Command{
		Use:                "save FILE",
		Short:              "Short for 'dynast ctl snapshot save'",
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			return a.ctl(append([]string{"snapshot", "save"}, args...))
		},
	})
	return cmd
}

func (a *App) snapshotRestoreCommand() *cobra.Command {
	var o restore.Options
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "restore FILE|DIR",
		Short: "Start a data directory from an etcd snapshot or from the data directory of a stopped etcd",
		Args:  cobra.ExactArgs(1),
	}
	cmd.Flags().BoolVar(&o.SkipHashCheck, "skip-hash-check", false, "take a file without its checksum: a copied database")
	cmd.Flags().StringVar(&o.WALDir, "wal-dir", "", "`DIR` of the log of an etcd that ran with --wal-dir")
	cmd.Flags().Uint64Var(&o.BumpRevision, "bump-revision", 0, "raise the latest revision by `N`, for clients that saw later ones than the snapshot has")
	cmd.Flags().BoolVar(&o.MarkCompacted, "mark-compacted", false, "with --bump-revision: compact all before it, so that clients that watch read everything anew")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	c := a.WithConfig(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := c.Load()
		if err != nil {
			return err
		}
		o.Source, o.DataDir, o.Client, o.Member = args[0], cfg.DataDir, cfg.Client.Listen, firstMember(cfg)
		res, err := restore.Restore(cmd.Context(), o)
		if err != nil {
			return asError(err)
		}
		if asJSON {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(res)
		}
		printRestored(cmd.OutOrStdout(), args[0], res, int64(cfg.Store.Quota))
		return nil
	}
	return cmd
}

// firstMember is the address that the first leader gets, if nobody else has it.
func firstMember(cfg *config.Config) string {
	return net.JoinHostPort(cfg.Member.Host, strconv.Itoa(int(cfg.Member.Ports.First)))
}

func printRestored(w io.Writer, from string, r *restore.Result, quota int64) {
	fmt.Fprintf(w, "restored %s to %s\n", from, r.DataDir)
	fmt.Fprintf(w, "revision %d (compacted up to %d), %d keys, %d leases, %d users, %d roles, auth %s\n",
		r.Revision, r.CompactRevision, r.Keys, r.Leases, r.Users, r.Roles, map[bool]string{true: "on", false: "off"}[r.AuthEnabled])
	if r.Replayed > 0 {
		fmt.Fprintf(w, "%d entries came from the log; %d of them were not known to be committed, and are taken as a leader takes them\n", r.Replayed, r.Uncommitted)
	}
	if r.Replayed > 0 && r.Members > 1 {
		fmt.Fprintf(w, "note: it was one of %d members; what the others acknowledged without it is not here\n", r.Members)
	}
	if r.Corrupt {
		fmt.Fprintln(w, "note: etcd's CORRUPT alarm is kept: nothing is served before 'dynast ctl alarm disarm'")
	}
	if r.UsedBytes >= quota {
		fmt.Fprintf(w, "note: %d bytes are in use, and store.quota is %d: writes are refused unless it is more\n", r.UsedBytes, quota)
	}
	fmt.Fprintf(w, "start it: dynast up --data-dir %s\n", r.DataDir)
}

func snapshotStatusCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "status FILE", Short: "Check a snapshot file and tell what is in it", Args: cobra.ExactArgs(1)}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object, as 'etcdutl snapshot status -w json' does")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		st, err := restore.Status(args[0])
		if err != nil {
			return asError(err)
		}
		if asJSON {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(st)
		}
		version := st.Version
		if version == "" {
			version = "before 3.6"
		}
		fmt.Fprintf(cmd.OutOrStdout(), "hash %08x, revision %d, %d revisions of keys, %d bytes, format %s\n", st.Hash, st.Revision, st.TotalKey, st.TotalSize, version)
		return nil
	}
	return cmd
}
