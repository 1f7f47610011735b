package cli

import (
	"context"
	"net"
	"os"
	ossignal "os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.etcd.io/etcd/etcdctl/v3/ctlv3/command"
	"go.etcd.io/etcd/pkg/v3/flags"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/datadir"
)

// ctlEnv is the prefix of the environment variables that set etcdctl's flags.
const ctlEnv = "ETCDCTL"

// ctlFlags are the flags of etcdctl's commands, and those that say where the cluster is.
type ctlFlags struct {
	*Configured
	// etcdctl has only its global flags.
	etcdctl *pflag.FlagSet
}

// ctlFlags adds the flags to fs. The help shows those that many people need.
func (a *App) ctlFlags(fs *pflag.FlagSet) *ctlFlags {
	c := &ctlFlags{Configured: a.bind(fs, "data_dir"), etcdctl: pflag.NewFlagSet("etcdctl", pflag.ContinueOnError)}
	own := c.etcdctl
	own.StringSlice("endpoints", nil, "addresses of the servers, as `HOST:PORT`,...; default: the cluster of the data directory")
	own.StringP("write-out", "w", "simple", "output `FORMAT`: fields, json, protobuf, simple or table")
	own.String("user", "", "`NAME[:PASSWORD]` of the user; without the password it asks for it")
	own.String("cacert", "", "CA of the server certificates (PEM `FILE`)")
	own.String("cert", "", "client certificate (PEM `FILE`)")
	own.String("key", "", "private key of the client certificate (PEM `FILE`)")
	hidden := pflag.NewFlagSet("hidden", pflag.ContinueOnError)
	hidden.Bool("debug", false, "log what the client does")
	hidden.Bool("hex", false, "print bytes as hexadecimal numbers")
	hidden.Duration("dial-timeout", 2*time.Second, "how long to wait for a connection")
	hidden.Duration("command-timeout", 5*time.Second, "how long to wait for the answer to a short command")
	hidden.Duration("keepalive-time", 2*time.Second, "how often a keepalive message is sent")
	hidden.Duration("keepalive-timeout", 6*time.Second, "how long to wait for the answer to a keepalive message")
	hidden.Int("max-request-bytes", 0, "maximum size of a request; 0: 2 MiB")
	hidden.Int("max-recv-bytes", 0, "maximum size of a response; 0: no limit")
	hidden.Bool("insecure-transport", true, "do not use TLS unless the endpoint or a certificate asks for it")
	hidden.Bool("insecure-discovery", true, "accept SRV records of servers without TLS")
	hidden.Bool("insecure-skip-tls-verify", false, "do not verify the server certificates")
	hidden.String("auth-jwt-token", "", "JWT of the user, in place of --user and --password")
	hidden.String("password", "", "password of the user that --user names")
	hidden.StringP("discovery-srv", "d", "", "`DOMAIN` whose SRV records name the servers")
	hidden.String("discovery-srv-name", "", "service `NAME` in the SRV records")
	hidden.VisitAll(func(f *pflag.Flag) { f.Hidden = true })
	own.AddFlagSet(hidden)
	fs.AddFlagSet(own)
	return c
}

func (a *App) ctlCommand() *cobra.Command {
	ctl := &cobra.Command{
		Use:   "ctl",
		Short: "Run any command of etcdctl on this cluster",
		Long: "These are etcdctl's own commands, with its output and exit codes. They find the cluster by its data directory, unless\n" +
			"--endpoints or ETCDCTL_ENDPOINTS names servers.",
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return asError(group(cmd, args)) },
	}
	c := a.ctlFlags(ctl.PersistentFlags())
	ctl.PersistentPreRunE = c.prepare
	ctl.SetFlagErrorFunc(ctlFlagError)
	ctl.AddGroup(command.NewKVGroup(), command.NewClusterMaintenanceGroup(), command.NewConcurrencyGroup(),
		command.NewAuthenticationGroup(), command.NewUtilityGroup())
	compaction := command.NewCompactionCommand()
	compaction.Aliases = []string{"compact"}
	ctl.AddCommand(
		command.NewGetCommand(), command.NewPutCommand(), command.NewDelCommand(), command.NewTxnCommand(), compaction,
		command.NewAlarmCommand(), command.NewDefragCommand(), command.NewEndpointCommand(), command.NewMoveLeaderCommand(),
		command.NewWatchCommand(), command.NewLeaseCommand(), command.NewMemberCommand(),
		command.NewSnapshotCommand(), command.NewMakeMirrorCommand(), command.NewLockCommand(), command.NewElectCommand(),
		command.NewAuthCommand(), command.NewUserCommand(), command.NewRoleCommand(), command.NewCheckCommand(),
		command.NewDowngradeCommand(), withoutServer(command.NewOptionsCommand(ctl)))
	for _, cmd := range ctl.Commands() {
		speakOf("dynast ctl", cmd)
	}
	ctl.AddCommand(withoutServer(command.NewVersionCommand())) // of etcdctl
	return ctl
}

// withoutServer makes a command of etcdctl that needs no server.
func withoutServer(cmd *cobra.Command) *cobra.Command {
	cmd.PersistentPreRunE = func(*cobra.Command, []string) error { return nil }
	return cmd
}

// ctlShortcut makes a command of etcdctl a command of dynast.
func (a *App) ctlShortcut(cmd *cobra.Command, use, short, long string) *cobra.Command {
	c := a.ctlFlags(cmd.Flags())
	cmd.Use, cmd.Short, cmd.Long, cmd.GroupID = use, short, long+"The other flags of 'dynast ctl options' have an effect here, too.", ""
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		// etcdctl's commands look up the environment for inherited flags, which these are not.
		if err := flags.SetPflagsFromEnv(nil, ctlEnv, c.etcdctl); err != nil {
			return &Error{Code: ExitUsage, Err: err}
		}
		c.etcdctl.VisitAll(func(f *pflag.Flag) { _ = os.Unsetenv(flags.FlagToEnv(ctlEnv, f.Name)) })
		return c.prepare(cmd, args)
	}
	cmd.SetFlagErrorFunc(ctlFlagError)
	speakOf("dynast", cmd)
	return cmd
}

// ctlFlagError gives a wrong flag etcdctl's exit code.
func ctlFlagError(cmd *cobra.Command, err error) error {
	return asError(flagProblem(cmd, err))
}

// speakOf replaces the name of etcdctl in the texts of a command.
func speakOf(program string, cmd *cobra.Command) {
	cmd.Short, _, _ = strings.Cut(cmd.Short, ". Use `") // every command has --help
	for _, plain := range []string{" specified in `--endpoints` flag", " on a given server endpoint."} {
		cmd.Short = strings.TrimSuffix(cmd.Short, plain) // so that it fits into the list of commands
	}
	for _, text := range []*string{&cmd.Short, &cmd.Long, &cmd.Example} {
		*text = strings.ReplaceAll(*text, "./etcdctl", "etcdctl")
		*text = strings.ReplaceAll(*text, "etcdctl", program)
	}
	var examples []string // those that fit
	for line := range strings.Lines(cmd.Example) {
		if len(line) <= helpWidth {
			examples = append(examples, line)
		}
	}
	cmd.Example = strings.TrimRight(strings.Join(examples, ""), "\n")
	for _, child := range cmd.Commands() {
		speakOf(program, child)
	}
}

// prepare names the cluster of the data directory as the endpoint, unless another one is named. If
// nothing runs there, it returns the error of 'dynast tree' instead of letting etcdctl wait.
func (c *ctlFlags) prepare(cmd *cobra.Command, _ []string) error {
	if cmd.HasSubCommands() { // it only says which there are
		return nil
	}
	// etcdctl relies on the Go runtime to end a watch on an interrupt. Its lock and elect
	// commands catch the signal themselves.
	ossignal.Reset(os.Interrupt)
	cfg, err := c.Load()
	if err != nil {
		return err
	}
	if named := c.namedEndpoints(); len(named) > 0 {
		own := Endpoint(cfg.DataDir, "")
		for _, endpoint := range named {
			if _, address, ok := strings.Cut(endpoint, "://"); ok {
				endpoint = address
			}
			if own == "" || endpoint != own {
				return nil
			}
		}
		_, err := c.running(cmd.Context(), cfg)
		return err
	}
	endpoint, err := c.running(cmd.Context(), cfg)
	if err != nil {
		return err
	}
	if cfg.Client.TLS() {
		endpoint = "https://" + endpoint
	}
	return c.etcdctl.Set("endpoints", endpoint)
}

// namedEndpoints returns the servers that the user has named by a flag or in the environment.
func (c *ctlFlags) namedEndpoints() []string {
	for _, flag := range []string{"discovery-srv", "endpoints"} {
		value := os.Getenv(flags.FlagToEnv(ctlEnv, flag))
		if f := c.etcdctl.Lookup(flag); f.Changed {
			value = strings.Trim(f.Value.String(), "[]")
		}
		if value != "" {
			return strings.Split(value, ",")
		}
	}
	return nil
}

// dialPatience is how long a configured address may take to accept a connection.
const dialPatience = time.Second

// running returns the client address of the cluster in the data directory. If nothing runs there,
// the error is that of 'dynast tree'. If there is no such directory, or the user may not look into
// it, the cluster may be another user's: then the configured address is used if it is open.
func (c *Configured) running(ctx context.Context, cfg *config.Config) (string, error) {
	dir, err := openDir(cfg.DataDir)
	if err == nil {
		if deserted(dir) {
			_, _, err = readTree(ctx, dir) // its processes may be invisible from here
		}
		return Endpoint(cfg.DataDir, cfg.Client.Listen), err
	}
	if !c.flags.Given("data_dir") {
		if conn, dialErr := net.DialTimeout("tcp", cfg.Client.Listen, dialPatience); dialErr == nil {
			_ = conn.Close()
			return cfg.Client.Listen, nil
		}
	}
	return "", err
}

// Endpoint returns the client address of the cluster in a data directory, or otherwise if there
// is no cluster.
func Endpoint(dataDir, otherwise string) string {
	dir, err := datadir.OpenForReading(dataDir)
	if err != nil {
		return otherwise
	}
	s, err := dir.ReadSuccession()
	if err != nil || s.Client == "" {
		return otherwise
	}
	return s.Client
}
