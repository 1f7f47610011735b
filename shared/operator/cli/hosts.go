package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/operator/hostsview"
	"github.com/dynast-io/dynast/shared/operator/term"
	"github.com/dynast-io/dynast/shared/rules/core"
)

const (
	// lookTimeout bounds a question about the hosts, changeTimeout a change, and switchTimeout
	// the copy of a whole database.
	lookTimeout   = 15 * time.Second
	changeTimeout = 30 * time.Second
	switchTimeout = 30 * time.Minute
)

func (a *App) hostsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "hosts", Short: "Show and change the hosts of the cluster", Args: cobra.NoArgs,
		Long: "Without a command it lists the hosts. One host becomes the first of several with 'dynast hosts init'; see docs/hosts.md."}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	c := a.WithCluster(cmd)
	c.run(cmd, func(ctx context.Context, cfg *config.Config, _ []string) error {
		return Hosts(ctx, cfg.DataDir, asJSON, os.Stdout, term.StyleOf(os.Stdout))
	})
	cmd.AddCommand(a.hostsInitCommand(), a.hostsTokenCommand(), a.hostsRemoveCommand(), a.hostsLeaveCommand(), a.hostsRecoverCommand())
	return cmd
}

// askHosts asks the leader of this host. It does not repeat a request that may have been carried out.
func askHosts(ctx context.Context, dataDir, path string, in, out any, timeout time.Duration) error {
	dir, err := openDir(dataDir)
	if err != nil {
		return err
	}
	if _, _, err := readTree(ctx, dir); err != nil { // says what is wrong if nothing runs
		return err
	}
	var body []byte
	if in != nil {
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	c, err := dialAdmin(dir)
	if err != nil {
		return err
	}
	defer c.close()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	// The leader may just hand over. A request that reached none is sent to the next one.
	resp, err := c.Hosts(ctx, &wire.HostsRequest{Path: path, Json: body}, grpc.WaitForReady(true))
	for status.Code(err) == codes.Unavailable && repeatable(path) && !deserted(dir) && ctx.Err() == nil {
		resp, err = c.Hosts(ctx, &wire.HostsRequest{Path: path, Json: body}, grpc.WaitForReady(true))
	}
	switch status.Code(err) {
	case codes.OK:
	case codes.FailedPrecondition, codes.PermissionDenied:
		return &Error{Code: core.ExitError, Err: refusal{status.Convert(err).Message()}}
	default:
		return &Error{Code: core.ExitError, Err: fmt.Errorf("the leader of this host exited before it answered (%s): 'dynast hosts' shows whether the command was carried out; repeating it is safe", status.Convert(err).Message())}
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(resp.Json, out)
}

// repeatable reports whether a request does no harm when it is carried out twice. A second token is only
// one that nobody uses.
func repeatable(path string) bool {
	switch path {
	case hosts.PathList, hosts.PathTokens, hosts.PathToken, hosts.PathRevoke:
		return true
	}
	return false
}

// errRefused means that the leader answered, and did not carry out the command.
var errRefused = errors.New("refused")

// refusal is the answer of a leader that refused a command.
type refusal struct{ text string }

func (r refusal) Error() string        { return r.text }
func (r refusal) Is(target error) bool { return target == errRefused }

// Hosts prints the hosts of a cluster.
func Hosts(ctx context.Context, dataDir string, asJSON bool, out io.Writer, s term.Style) error {
	var l hosts.List
	if err := askHosts(ctx, dataDir, hosts.PathList, nil, &l, lookTimeout); err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(out).Encode(&l)
	}
	return hostsview.Write(out, &l, time.Now(), s)
}

func (a *App) hostsInitCommand() *cobra.Command {
	var q hosts.InitRequest
	var asJSON bool
	cmd := &cobra.Command{Use: "init --address IP:PORT", Short: "Make this host the first of several, with its data", Args: cobra.NoArgs,
		Long: "The store moves to etcd's Raft. Keys, revisions, leases, users and roles are kept, and clients keep their address. Writes\n" +
			"pause for the switch. If it fails, everything is as before. It prints the command for the next host."}
	cmd.Flags().StringVar(&q.Address, "address", "", "`IP:PORT` at which the other hosts reach this one")
	cmd.Flags().StringVar(&q.Name, "name", "", "`NAME` of this host in the cluster; default: hosts.name, or the host's own name")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	c := a.WithCluster(cmd)
	c.run(cmd, func(ctx context.Context, cfg *config.Config, _ []string) error {
		if q.Address == "" {
			q.Address = cfg.Hosts.Address
		}
		if q.Address == "" {
			return errors.New("hosts init: --address is missing: pass the IP:PORT at which the other hosts reach this one, for example --address 10.0.0.1:2380")
		}
		var r hosts.InitResponse
		if err := askHosts(ctx, cfg.DataDir, hosts.PathInit, q, &r, switchTimeout); err != nil {
			return err
		}
		if asJSON {
			return json.NewEncoder(os.Stdout).Encode(&r)
		}
		return writeInit(os.Stdout, &r)
	})
	return cmd
}

func writeInit(out io.Writer, r *hosts.InitResponse) error {
	moved := "This host is one of several already"
	if r.Paused > 0 {
		moved = fmt.Sprintf("Moved %s up to revision %d; writes paused for %s", config.Bytes(r.Bytes), r.Revision, r.Paused.Round(time.Millisecond))
	}
	_, err := fmt.Fprintf(out, `%s.
This host is %s at %s. Alone it is not safer than before: add two more hosts.

On this host, make a token and copy its file to the next host:
  dynast hosts token > token
On the next host:
  dynast up --join %s --token-file token
`, moved, r.Name, r.Address, r.Address)
	return err
}

func (a *App) hostsTokenCommand() *cobra.Command {
	var q hosts.TokenRequest
	var list, asJSON bool
	var revoke string
	cmd := &cobra.Command{Use: "token", Short: "Make a token that admits a new host; list or revoke tokens", Args: cobra.NoArgs,
		Long: "The token is printed on standard output, so send it to a file: dynast hosts token > token. Everybody who has it can join\n" +
			"the cluster, until it expires or is revoked. A token is valid on the host that made it."}
	cmd.Flags().DurationVar(&q.Life, "for", 24*time.Hour, "how long the token is valid, 1m to 720h")
	cmd.Flags().BoolVar(&q.Once, "once", false, "admit one host only")
	cmd.Flags().BoolVar(&list, "list", false, "list the tokens of this host, without their secrets")
	cmd.Flags().StringVar(&revoke, "revoke", "", "`NAME` of a token that shall admit nobody any more")
	cmd.Flags().BoolVar(&asJSON, "json", false, "with --list: print JSON")
	cmd.MarkFlagsMutuallyExclusive("list", "revoke")
	c := a.WithCluster(cmd)
	c.run(cmd, func(ctx context.Context, cfg *config.Config, _ []string) error {
		err := errors.Join(
			without(cmd, !list, "needs --list", "json"),
			without(cmd, list || revoke != "", "is for a new token", "for", "once"))
		switch {
		case err != nil:
			return err
		case list:
			var all []hosts.Issued
			if err := askHosts(ctx, cfg.DataDir, hosts.PathTokens, nil, &all, lookTimeout); err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(os.Stdout).Encode(listed(all))
			}
			return hostsview.WriteTokens(os.Stdout, all, time.Now(), term.StyleOf(os.Stdout))
		case revoke != "":
			if err := askHosts(ctx, cfg.DataDir, hosts.PathRevoke, hosts.NameRequest{Name: revoke}, nil, changeTimeout); err != nil {
				return err
			}
			_, err = fmt.Printf("token %s admits nobody any more\n", revoke)
			return err
		}
		var r hosts.TokenResponse
		if err := askHosts(ctx, cfg.DataDir, hosts.PathToken, q, &r, changeTimeout); err != nil {
			return err
		}
		_, err = fmt.Println(r.Token)
		return err
	})
	return cmd
}

// listedToken is a token in JSON. It has no checksum of the secret either.
type listedToken struct {
	ID      string    `json:"id"`
	Made    time.Time `json:"made"`
	Expires time.Time `json:"expires"`
	Once    bool      `json:"once"`
	UsedBy  string    `json:"used_by,omitempty"`
}

func listed(all []hosts.Issued) []listedToken {
	out := []listedToken{}
	for _, t := range all {
		out = append(out, listedToken{ID: t.ID, Made: t.Made, Expires: t.Expires, Once: t.Once, UsedBy: t.UsedBy})
	}
	return out
}

func (a *App) hostsRemoveCommand() *cobra.Command {
	var q hosts.NameRequest
	cmd := &cobra.Command{Use: "remove NAME", Short: "Remove a host from the cluster, for example one that is dead", Args: cobra.ExactArgs(1),
		Long: "Remove a dead host before you add its replacement. Otherwise the dead one still counts for the majority."}
	cmd.Flags().BoolVar(&q.Force, "force", false, "remove it also if the hosts that are left have no majority that answers")
	c := a.WithCluster(cmd)
	c.run(cmd, func(ctx context.Context, cfg *config.Config, args []string) error {
		q.Name = args[0]
		var h hosts.Host
		if err := askHosts(ctx, cfg.DataDir, hosts.PathRemove, q, &h, changeTimeout); err != nil {
			return err
		}
		_, err := fmt.Printf("removed %s (%s)\n", h.Name, h.Address)
		return err
	})
	return cmd
}

// promotedHost is the result of 'dynast promote HOST'.
type promotedHost struct {
	Schema  int    `json:"schema"`
	Host    string `json:"host"`
	Address string `json:"address"`
}

// Render prints which host leads.
func (p *promotedHost) Render(out io.Writer) error {
	_, err := fmt.Fprintf(out, "%s (%s) leads\n", p.Host, p.Address)
	return err
}

// promoteHost makes a host the leading one.
func promoteHost(ctx context.Context, dataDir, name string) (*promotedHost, error) {
	var h hosts.Host
	if err := askHosts(ctx, dataDir, hosts.PathPromote, hosts.NameRequest{Name: name}, &h, changeTimeout); err != nil {
		return nil, err
	}
	return &promotedHost{resultSchema, h.Name, h.Address}, nil
}
