package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/client/pkg/v3/logutil"
	"go.etcd.io/etcd/etcdctl/v3/ctlv3/command"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/replica/restore"
	"github.com/dynast-io/dynast/shared/rules/plural"
)

func (a *App) snapshotCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "snapshot", Short: "Save, check and restore snapshots, including those of etcd"}
	cmd.AddCommand(a.snapshotRestoreCommand(), snapshotStatusCommand(), a.snapshotSaveCommand())
	return cmd
}

func (a *App) snapshotSaveCommand() *cobra.Command {
	cmd := a.ctlShortcut(command.NewSnapshotSaveCommand(), "save FILE", "Write a snapshot of the running cluster to a file, and check it",
		"It has the flags of 'dynast ctl snapshot save'.\n\n")
	run := cmd.Run
	cmd.Run = nil
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return saveSnapshot(cmd.OutOrStdout(), func() { run(cmd, args) })
	}
	return cmd
}

// saved is what etcdctl prints before the name of the file when it has saved a snapshot.
const saved = "Snapshot saved at "

// saveSnapshot runs etcdctl's command, which exits on an error. If it succeeds, saveSnapshot checks the file and prints one line
// instead of etcdctl's messages and log lines. Everything else that etcdctl prints, for example the
// question for a password, is passed on.
func saveSnapshot(out io.Writer, save func()) error {
	logutil.DefaultZapLoggerConfig.OutputPaths = []string{os.DevNull}
	terminal := os.Stdout
	r, w, err := os.Pipe()
	if err != nil {
		return asError(err)
	}
	said := make(chan string)
	go func() { said <- passOn(terminal, r) }()
	os.Stdout = w
	save()
	os.Stdout = terminal
	_ = w.Close()
	file := <-said
	_ = r.Close()
	if file == "" {
		return asError(errors.New("etcdctl does not say that it saved a snapshot"))
	}
	st, err := restore.Status(file)
	if err != nil {
		return asError(fmt.Errorf("the snapshot was saved, but it cannot be used: %w", err))
	}
	_, err = fmt.Fprintf(out, "saved %s: %s, revision %d, hash %08x\n", file, plural.Count(st.TotalSize, "byte"), st.Revision, st.Hash)
	return asError(err)
}

// passOn copies what etcdctl prints until it says that it has saved a snapshot. It returns the name of
// the file.
func passOn(out io.Writer, in io.Reader) (file string) {
	buf := make([]byte, 4096)
	var last strings.Builder // what etcdctl says at the end
	for {
		n, err := in.Read(buf)
		text := string(buf[:n])
		if last.Len() == 0 && !strings.HasPrefix(text, saved) {
			_, _ = io.WriteString(out, text)
		} else {
			last.WriteString(text)
		}
		if err != nil {
			file, _, _ = strings.Cut(strings.TrimPrefix(last.String(), saved), "\n")
			return file
		}
	}
}

func (a *App) snapshotRestoreCommand() *cobra.Command {
	var o restore.Options
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "restore FILE|DIR",
		Short: "Create a data directory from a snapshot or from a stopped etcd",
		Args:  cobra.ExactArgs(1),
	}
	cmd.Flags().BoolVar(&o.SkipHashCheck, "skip-hash-check", false, "accept a file without a checksum, for example a copied database file")
	cmd.Flags().StringVar(&o.WALDir, "wal-dir", "", "`DIR` that holds the log, if etcd ran with --wal-dir")
	cmd.Flags().Uint64Var(&o.BumpRevision, "bump-revision", 0, "raise the latest revision by `N`, for clients that saw later revisions than the snapshot has")
	cmd.Flags().BoolVar(&o.MarkCompacted, "mark-compacted", false, "compact all revisions before the raised one, so that watching clients read everything again; needs --bump-revision")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	c := a.WithCluster(cmd)
	c.run(cmd, func(ctx context.Context, cfg *config.Config, args []string) error {
		o.Source, o.DataDir, o.Client, o.Member = args[0], cfg.DataDir, cfg.Client.Listen, firstMember(cfg)
		res, err := restore.Restore(ctx, o)
		if err != nil {
			return err
		}
		if asJSON {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(res)
		}
		printRestored(cmd.OutOrStdout(), args[0], res, int64(cfg.Store.Quota))
		return nil
	})
	return cmd
}

// firstMember returns the address that the first leader gets if it is free.
func firstMember(cfg *config.Config) string {
	return net.JoinHostPort(cfg.Member.Host, strconv.Itoa(int(cfg.Member.Ports.First)))
}

func printRestored(w io.Writer, from string, r *restore.Result, quota int64) {
	fmt.Fprintf(w, "restored %s to %s\n", from, r.DataDir)
	fmt.Fprintf(w, "revision %d (compacted up to %d), %s, %s, %s, %s, auth %s\n",
		r.Revision, r.CompactRevision, plural.Count(r.Keys, "key"), plural.Count(r.Leases, "lease"), plural.Count(r.Users, "user"), plural.Count(r.Roles, "role"), map[bool]string{true: "on", false: "off"}[r.AuthEnabled])
	if r.Replayed > 0 {
		fmt.Fprintf(w, "%s came from the log; %d of them not known to be committed, but restored, as a new leader would do\n", plural.Count(r.Replayed, "entry"), r.Uncommitted)
	}
	if r.Replayed > 0 && r.Members > 1 {
		fmt.Fprintf(w, "note: this was one of %d members; writes that the others acknowledged without it are missing\n", r.Members)
	}
	if r.Corrupt {
		fmt.Fprintln(w, "note: the CORRUPT alarm of etcd was restored: requests are refused until you run 'dynast ctl alarm disarm'")
	}
	if r.UsedBytes >= quota {
		fmt.Fprintf(w, "note: the database uses %s, but store.quota is %d: writes are refused until you raise it\n", plural.Count(r.UsedBytes, "byte"), quota)
	}
	fmt.Fprintf(w, "to start it: dynast up --data-dir %s\n", r.DataDir)
}

func snapshotStatusCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "status FILE", Short: "Check a snapshot file and print a summary of it", Args: cobra.ExactArgs(1)}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object, in the format of 'etcdutl snapshot status -w json'")
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
		fmt.Fprintf(cmd.OutOrStdout(), "hash %08x, revision %d, %s, %s, format %s\n", st.Hash, st.Revision, plural.Count(st.TotalKey, "key revision"), plural.Count(st.TotalSize, "byte"), version)
		return nil
	}
	return cmd
}
